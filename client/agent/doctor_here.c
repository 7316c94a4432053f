/* What `doctor` finds on this machine: configuration, keys, certificate, disk, kernel, GPU. Main thread. */
#include "client/agent/doctor.h"

#include "common/base/clock.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DAY_MS (24 * 3600 * 1000LL)

/* ---- configuration and identity ---- */

void cs_doctor_configuration(const char *path, cs_findings *findings, cs_site_config **ret)
{
    *ret = NULL;
    if (cs_site_config_load(path, ret) == CS_OK)
        cs_finding_good(findings, "configuration.ok", "%s: site '%s', %zu data set%s", path, (*ret)->site,
                        (*ret)->datasets_count, (*ret)->datasets_count == 1 ? "" : "s");
    else
        cs_finding_bad(
            findings, CS_FOUND_CONFIGURATION_INVALID, CS_FINDING_FAIL, cs_error_text(),
            "a site.yaml as in docs/site.md",
            "correct the file at the line that is named; consilium-client join writes a commented one where there "
            "is none");
}

typedef struct key_check {
    const char *folder;
    cs_findings *findings;
    size_t files, faults;
} key_check;

static void add_key_fault(key_check *check, cs_finding_id id, const char *found, const char *expected,
                          const char *action)
{
    check->faults++;
    cs_finding_bad(check->findings, id, CS_FINDING_FAIL, found, expected, action);
}

static bool ends_with(const char *text, const char *end)
{
    size_t size = strlen(text), end_size = strlen(end);

    return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

/* Whatever may hold a private key for the owner alone; nothing that others may write. */
static void check_mode(key_check *check, const char *path, bool is_secret)
{
    struct stat info;
    mode_t forbidden = is_secret ? S_IRWXG | S_IRWXO : S_IWGRP | S_IWOTH;

    if (lstat(path, &info) != 0) {
        CS_AUTO(cs_string) found = cs_format("%s cannot be examined: %m", path);
        add_key_fault(check, CS_FOUND_KEYS_OWNER, found, "a file of the user that runs consilium-client",
                      "run doctor as that user");
    } else if (info.st_uid != geteuid()) {
        CS_AUTO(cs_string) found = cs_format("%s belongs to user %u", path, info.st_uid);
        CS_AUTO(cs_string) expected = cs_format("user %u, who runs this", geteuid());
        add_key_fault(check, CS_FOUND_KEYS_OWNER, found, expected,
                      "run doctor and the agent as the user that joined, or chown the folder");
    } else if (info.st_mode & forbidden) {
        CS_AUTO(cs_string) found = cs_format("%s has mode %04o", path, info.st_mode & 07777);
        CS_AUTO(cs_string) expected =
            cs_format("no rights of others (mode %s)", S_ISDIR(info.st_mode) ? "0700" : "0600");
        CS_AUTO(cs_string) action = cs_format("chmod go-rwx %s; if others had access to this machine, ask the operator "
                                              "for a new token and join again",
                                              path);
        add_key_fault(check, CS_FOUND_KEYS_RIGHTS, found, expected, action);
    }
}

static cs_status check_key_file(void *self, const char *name)
{
    key_check *check = self;
    CS_AUTO(cs_string) path = cs_path_join(check->folder, name);

    check->files++;
    check_mode(check, path, !ends_with(name, ".crt"));
    return CS_OK;
}

void cs_doctor_keys(const char *state_folder, cs_findings *findings)
{
    CS_AUTO(cs_string) folder = cs_path_join(state_folder, "keys");
    key_check check = {.folder = folder, .findings = findings};

    if (cs_folder_list(folder, check_key_file, &check) != CS_OK) {
        cs_finding_bad(findings, CS_FOUND_KEYS_MISSING, CS_FINDING_FAIL, cs_error_text(),
                       "the keys that consilium-client join makes",
                       "run consilium-client join with the file from the operator; check --state and the user");
        return;
    }
    check_mode(&check, folder, true);
    if (check.faults == 0)
        cs_finding_good(findings, "keys.ok", "%s: %zu files, for this user alone", folder, check.files);
}

static void add_identity_mismatch(const cs_site_identity *identity, const cs_site_config *config, cs_findings *findings)
{
    CS_AUTO(cs_string) found =
        cs_format("the certificate is for the site '%s', site.yaml says '%s'", identity->leaf.name, config->site);

    cs_finding_bad(findings, CS_FOUND_IDENTITY_OTHER_SITE, CS_FINDING_FAIL, found, "one name",
                   "correct `site:` in site.yaml, or the state folder");
}

void cs_doctor_certificate(const cs_site_identity *identity, const cs_site_config *config, cs_findings *findings)
{
    const cs_identity *leaf = &identity->leaf;
    int64_t now = cs_clock_wall_ms();
    int64_t left = leaf->not_after_ms - now;
    char from[CS_TIME_TEXT_BYTES], to[CS_TIME_TEXT_BYTES], at[CS_TIME_TEXT_BYTES];
    char serial[2 * CS_SERIAL_BYTES + 1];

    cs_hex_encode(serial, leaf->serial, sizeof leaf->serial);
    if (config && strcmp(leaf->name, config->site) != 0)
        add_identity_mismatch(identity, config, findings);
    else
        cs_finding_good(findings, "identity.ok", "site '%s' of '%s'", leaf->name, leaf->consortium);

    cs_clock_format(leaf->not_before_ms, from);
    cs_clock_format(leaf->not_after_ms, to);
    cs_clock_format(now, at);
    CS_AUTO(cs_string) valid = cs_format("a time between %s and %s, when the certificate is valid", from, to);
    if (now < leaf->not_before_ms) {
        CS_AUTO(cs_string) found = cs_format("this machine's clock says %s", at);
        cs_finding_bad(findings, CS_FOUND_CLOCK_OUTSIDE_CERTIFICATE, CS_FINDING_FAIL, found, valid,
                       "set the clock (timedatectl, NTP)");
    } else if (left <= 0) {
        CS_AUTO(cs_string) found = cs_format("the certificate ended at %s, the clock says %s", to, at);
        cs_finding_bad(
            findings, CS_FOUND_CERTIFICATE_EXPIRED, CS_FINDING_FAIL, found, "a certificate that is valid now",
            "if the clock is right, ask the operator for consilium-server token new SITE --rejoin and join again");
    } else if (left < (leaf->not_after_ms - leaf->not_before_ms) / 4) {
        /* The agent renews with a third of the life left: by now it has tried for a while. */
        CS_AUTO(cs_string) found = cs_format("%.1f days left, until %s", (double)left / DAY_MS, to);
        cs_finding_bad(findings, CS_FOUND_CERTIFICATE_NOT_RENEWED, CS_FINDING_WARN, found, "renewed by now",
                       "let the agent run where it reaches the coordinator: consilium-client run");
    } else {
        cs_finding_good(findings, "certificate.ok", "%.1f days left, until %s; valid from %s, serial %s",
                        (double)left / DAY_MS, to, from, serial);
    }
}

/* Written and synced as the agent does it: rights, read-only file systems, quotas and inodes show at once. */
static cs_status try_to_write(const char *state_folder)
{
    static const char text[] = "consilium-client doctor was here\n";
    CS_AUTO(cs_string) name = cs_format(".doctor-%d", (int)getpid());
    CS_AUTO(cs_string) path = cs_path_join(state_folder, name);

    CS_TRY(cs_file_write_atomic(path, cs_bytes_of_text(text), 0600));
    return cs_file_remove(path);
}

void cs_doctor_room(const char *state_folder, uint64_t free_bytes, cs_findings *findings)
{
    CS_AUTO(cs_string) found = cs_format("%" PRIu64 " MiB free at %s", free_bytes >> 20, state_folder);
    CS_AUTO(cs_string) expected = cs_format("%llu MiB", CS_DOCTOR_DISK_WARN_BYTES >> 20);
    const bool is_full = free_bytes < CS_DOCTOR_DISK_FAIL_BYTES;

    if (free_bytes >= CS_DOCTOR_DISK_WARN_BYTES)
        cs_finding_good(findings, "disk.ok", "%s", found);
    else
        cs_finding_bad(findings, is_full ? CS_FOUND_DISK_FULL : CS_FOUND_DISK_LOW,
                       is_full ? CS_FINDING_FAIL : CS_FINDING_WARN, found, expected,
                       "make room, or move the state folder to a larger disk");
}

void cs_doctor_disk(const char *state_folder, cs_findings *findings)
{
    uint64_t free_bytes = 0;

    if (cs_disk_free(state_folder, &free_bytes) != CS_OK) {
        cs_finding_bad(findings, CS_FOUND_DISK_UNREADABLE, CS_FINDING_FAIL, cs_error_text(), "a state folder",
                       "check --state");
        return;
    }
    cs_doctor_room(state_folder, free_bytes, findings);
    if (try_to_write(state_folder) != CS_OK)
        cs_finding_bad(findings, CS_FOUND_DISK_UNWRITABLE, CS_FINDING_FAIL, cs_error_text(),
                       "a state folder in which this user can write",
                       "give the folder to the user that runs consilium-client, on a file system that is writable and "
                       "within its quota");
}

/* ---- confinement ---- */

cs_kernel cs_kernel_probe(void)
{
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    long abi = syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);

    return (cs_kernel){
        .landlock_abi = abi > 0 ? (int)abi : 0,
        .has_seccomp = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0,
        .has_no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) >= 0,
    };
}

static void check_confinement(cs_finding_id id, const char *name, bool is_there, const cs_site_config *config,
                              const char *action, cs_findings *findings)
{
    CS_AUTO(cs_string) found = cs_format("this kernel has no %s", name);

    if (is_there)
        return;
    if (config && !config->requires_confinement)
        cs_finding_bad(findings, id, CS_FINDING_WARN, found, name,
                       "the worker runs without it, because policy.confinement is `preferred`");
    else if (config && cs_names_have(&config->accepted_missing, name))
        cs_finding_bad(findings, id, CS_FINDING_WARN, found, name,
                       "the worker runs without it, because policy.accept_missing names it");
    else
        cs_finding_bad(findings, id, CS_FINDING_FAIL, found, name, action);
}

void cs_doctor_confinement(const cs_kernel *kernel, const cs_site_config *config, cs_findings *findings)
{
    check_confinement(CS_FOUND_CONFINEMENT_LANDLOCK, "landlock", kernel->landlock_abi > 0, config,
                      "use a kernel from 5.13 on with landlock among its security modules (boot option "
                      "lsm=landlock,…); or name landlock in policy.accept_missing if this site does without",
                      findings);
    check_confinement(CS_FOUND_CONFINEMENT_SECCOMP, "seccomp", kernel->has_seccomp, config,
                      "use a kernel with CONFIG_SECCOMP_FILTER; or name seccomp in policy.accept_missing if this site "
                      "does without",
                      findings);
    check_confinement(CS_FOUND_CONFINEMENT_NO_NEW_PRIVS, "no_new_privs", kernel->has_no_new_privs, config,
                      "use a kernel from 3.5 on", findings);
    if (kernel->landlock_abi > 0 && kernel->has_seccomp && kernel->has_no_new_privs)
        cs_finding_good(findings, "confinement.ok", "the kernel offers landlock %d, seccomp and no_new_privs",
                        kernel->landlock_abi);
}

/* ---- GPU ---- */

#define NVIDIA_VENDOR   "0x10de"
#define DISPLAY_CLASS   "0x03" /* of PCI: VGA, 3D and other display controllers */
#define SMALL_MAX_BYTES 4096

static bool starts_with(const char *text, const char *beginning)
{
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

static bool file_starts_with(const char *folder, const char *name, const char *beginning)
{
    CS_AUTO(cs_string) path = cs_path_join(folder, name);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;

    return cs_file_read_all(path, SMALL_MAX_BYTES, &text) == CS_OK && starts_with(cs_buffer_text(&text), beginning);
}

typedef struct gpu_search {
    const char *folder;
    size_t cards;   /* on the PCI bus */
    size_t devices; /* /dev/nvidia0 … */
    char *denied;   /* a sentence about the first device that does not open */
} gpu_search;

static cs_status count_card(void *self, const char *name)
{
    gpu_search *search = self;
    CS_AUTO(cs_string) device = cs_path_join(search->folder, name);

    if (file_starts_with(device, "vendor", NVIDIA_VENDOR) && file_starts_with(device, "class", DISPLAY_CLASS))
        search->cards++;
    return CS_OK;
}

static cs_status try_device(void *self, const char *name)
{
    gpu_search *search = self;
    size_t prefix = strlen("nvidia");
    bool is_card = starts_with(name, "nvidia") && name[prefix] >= '0' && name[prefix] <= '9';
    bool is_needed = is_card || strcmp(name, "nvidiactl") == 0;

    search->devices += is_card ? 1 : 0;
    if (!is_needed || search->denied)
        return CS_OK;
    CS_AUTO(cs_string) path = cs_path_join(search->folder, name);
    CS_AUTO(cs_fd) fd = -1;
    if (cs_file_open(path, O_RDWR, 0, &fd) != CS_OK)
        search->denied = cs_strdup(cs_error_text());
    return CS_OK;
}

/* "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 …" → 535.183.01; NULL: no driver. */
static char *driver_version(const char *root)
{
    CS_AUTO(cs_string) path = cs_format("%s/proc/driver/nvidia/version", root);
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;

    if (cs_file_read_all(path, SMALL_MAX_BYTES, &text) != CS_OK)
        return NULL;
    const char *at = strstr(cs_buffer_text(&text), "Kernel Module");
    at = at ? at + strlen("Kernel Module") : "";
    at += strcspn(at, "0123456789\n");
    size_t size = strspn(at, "0123456789.");
    return size > 0 ? cs_strndup(at, size) : cs_strdup("of an unknown version");
}

static bool is_container(const char *root)
{
    static const char *const marks[] = {"/.dockerenv", "/run/.containerenv"};

    for (size_t i = 0; i < CS_COUNT(marks); i++) {
        CS_AUTO(cs_string) path = cs_format("%s%s", root, marks[i]);
        if (cs_file_exists(path))
            return true;
    }
    return false;
}

static void check_devices(const gpu_search *search, const char *driver, const char *build, cs_findings *findings)
{
    CS_AUTO(cs_string) seen = cs_format("%zu NVIDIA GPU%s, driver %s", search->devices, search->devices == 1 ? "" : "s",
                                        driver ? driver : "not visible");

    if (search->denied) {
        cs_finding_bad(findings, CS_FOUND_GPU_DENIED, CS_FINDING_WARN, search->denied,
                       "devices of the GPU that this user may open",
                       "add the user that runs consilium-client to the group of the device (often `video`), or give "
                       "the container its devices; until then the worker uses the processor");
    } else if (build && !strstr(build, "cuda")) {
        CS_AUTO(cs_string) found = cs_format("%s; the worker's build is '%s'", seen, build);
        cs_finding_bad(findings, CS_FOUND_GPU_UNUSED, CS_FINDING_WARN, found, "a worker that is built with CUDA",
                       "use the client image with a GPU, or build consilium-worker against the libtorch of a CUDA "
                       "wheel; this one trains on the processor, which is fine for small models");
    } else {
        cs_finding_good(findings, "gpu.ok", "%s, opened by this user", seen);
    }
}

void cs_doctor_gpu(const char *root, const char *asked_for, const char *build, cs_findings *findings)
{
    CS_AUTO(cs_string) buses = cs_format("%s/sys/bus/pci/devices", root);
    CS_AUTO(cs_string) devices = cs_format("%s/dev", root);
    CS_AUTO(cs_string) driver = driver_version(root);
    gpu_search cards = {.folder = buses}, search = {.folder = devices};

    CS_IGNORE(cs_folder_list(buses, count_card, &cards), "a machine without that bus has no card on it");
    CS_IGNORE(cs_folder_list(devices, try_device, &search), "no devices, no GPU");
    bool was_asked_for = asked_for && asked_for[0] && strcmp(asked_for, "void") != 0 && strcmp(asked_for, "none") != 0;
    if (search.devices > 0) {
        check_devices(&search, driver, build, findings);
    } else if (was_asked_for) {
        CS_AUTO(cs_string) found = cs_format("NVIDIA_VISIBLE_DEVICES is '%s', but there is no /dev/nvidia0", asked_for);
        cs_finding_bad(findings, CS_FOUND_GPU_MISSING, CS_FINDING_FAIL, found, "the GPU that was asked for",
                       "start the container with --gpus all, on a host with NVIDIA's driver and container toolkit; or "
                       "use the image without a GPU");
    } else if ((cards.cards > 0 || driver) && is_container(root)) {
        cs_finding_bad(findings, CS_FOUND_GPU_NOT_GIVEN, CS_FINDING_WARN,
                       "the host has an NVIDIA GPU, this container has no device of it", "/dev/nvidia0",
                       "start the container with --gpus all (NVIDIA's container toolkit on the host) if the worker is "
                       "to use it; else the worker uses the processor");
    } else if (cards.cards > 0) {
        CS_AUTO(cs_string) found = cs_format("%zu NVIDIA card%s on the PCI bus, but no /dev/nvidia0", cards.cards,
                                             cards.cards == 1 ? "" : "s");
        cs_finding_bad(findings, CS_FOUND_GPU_NO_DRIVER, CS_FINDING_WARN, found, "NVIDIA's driver, loaded",
                       "install NVIDIA's driver and reboot (nvidia-smi shows whether it works) if the worker is to use "
                       "the GPU; else the worker uses the processor");
    } else {
        cs_finding_good(findings, "gpu.ok", "no NVIDIA GPU here: the worker trains on the processor");
    }
    cs_free(search.denied);
}
