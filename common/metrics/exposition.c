/* The text format: # HELP, # TYPE, samples; and the samples every daemon has. Any thread. */
#include "common/metrics/exposition.h"

#include "common/base/file.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define STATM_MAX_BYTES 4096

static bool is_name(const char *name)
{
    return name[0] >= 'a' && name[0] <= 'z' && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(name);
}

static bool ends_with_total(const char *name)
{
    const size_t size = strlen(name);
    return size > 6 && strcmp(name + size - 6, "_total") == 0;
}

void cs_metrics_family(cs_metrics_page *page, const char *name, cs_metrics_kind kind, const char *help)
{
    assert(is_name(name) && ends_with_total(name) == (kind == CS_COUNTER) && help[0] != '\0');
    assert(strpbrk(help, "\\\n") == NULL); /* would need escapes */
    page->name = name;
    page->help = help;
    page->kind = kind;
    page->has_samples = false;
}

static void append_value(cs_buffer *out, const char *text)
{
    cs_bytes rest = cs_bytes_of_text(text);
    while (rest.size > 0) {
        const size_t length = cs_utf8_length(rest);
        if (rest.data[0] == '\n')
            cs_buffer_append_text(out, "\\n");
        else if (rest.data[0] == '\\' || rest.data[0] == '"')
            cs_buffer_printf(out, "\\%c", rest.data[0]);
        else
            cs_buffer_append(out, length > 0 ? rest.data : (const uint8_t *)"?", CS_MAX(length, (size_t)1));
        rest = cs_bytes_of(rest.data + CS_MAX(length, (size_t)1), rest.size - CS_MAX(length, (size_t)1));
    }
}

static void begin_sample(cs_metrics_page *page, const cs_metrics_label *labels)
{
    cs_buffer *out = page->out;
    if (!page->has_samples)
        cs_buffer_printf(out, "# HELP %s %s\n# TYPE %s %s\n", page->name, page->help, page->name,
                         page->kind == CS_COUNTER ? "counter" : "gauge");
    page->has_samples = true;
    cs_buffer_append_text(out, page->name);
    for (size_t i = 0; labels[i].name != NULL; i++) {
        assert(is_name(labels[i].name));
        cs_buffer_printf(out, "%s%s=\"", i == 0 ? "{" : ",", labels[i].name);
        append_value(out, labels[i].value);
        cs_buffer_append_text(out, "\"");
    }
    cs_buffer_append_text(out, labels[0].name != NULL ? "} " : " ");
}

void cs_metrics_put_count(cs_metrics_page *page, uint64_t value, const cs_metrics_label *labels)
{
    begin_sample(page, labels);
    cs_buffer_printf(page->out, "%" PRIu64 "\n", value);
}

void cs_metrics_put_number(cs_metrics_page *page, double value, const cs_metrics_label *labels)
{
    begin_sample(page, labels);
    if (isnan(value))
        cs_buffer_append_text(page->out, "NaN\n");
    else if (isinf(value))
        cs_buffer_append_text(page->out, value > 0 ? "+Inf\n" : "-Inf\n");
    else
        cs_buffer_printf(page->out, "%.15g\n", value);
}

/* ---- the process ---- */

/* proc(5): /proc/self/statm has pages of the whole address space, then resident ones. */
static bool resident_bytes(uint64_t *ret)
{
    CS_AUTO(cs_buffer) text = CS_BUFFER_EMPTY;
    if (cs_file_read_all("/proc/self/statm", STATM_MAX_BYTES, &text) != CS_OK)
        return false;
    const char *space = strchr(cs_buffer_text(&text), ' ');
    if (space == NULL)
        return false;
    *ret = strtoull(space + 1, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
    return true;
}

static cs_status count_name(void *count, const char *name)
{
    (void)name;
    *(uint64_t *)count += 1;
    return CS_OK;
}

static double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

void cs_metrics_process(cs_metrics_page *page, const char *program, int64_t started_wall_ms)
{
    cs_metrics_family(page, "consilium_build_info", CS_GAUGE, "Always 1; the labels say what runs here.");
    cs_metrics_count(page, 1, CS_LABEL("program", program), CS_LABEL("version", CS_VERSION));
    uint64_t resident = 0;
    if (resident_bytes(&resident)) {
        cs_metrics_family(page, "process_resident_memory_bytes", CS_GAUGE, "Resident memory size in bytes.");
        cs_metrics_count(page, resident);
    }
    uint64_t open_fds = 0;
    if (cs_folder_list("/proc/self/fd", count_name, &open_fds) == CS_OK) {
        cs_metrics_family(page, "process_open_fds", CS_GAUGE, "Number of open file descriptors.");
        cs_metrics_count(page, open_fds - CS_MIN(open_fds, UINT64_C(1))); /* without the listing's own */
    }
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        cs_metrics_family(page, "process_max_fds", CS_GAUGE, "Maximum number of open file descriptors.");
        cs_metrics_count(page, (uint64_t)limit.rlim_cur);
    }
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        cs_metrics_family(page, "process_cpu_seconds_total", CS_COUNTER,
                          "Total user and system CPU time spent in seconds.");
        cs_metrics_number(page, seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime));
    }
    cs_metrics_family(page, "process_start_time_seconds", CS_GAUGE,
                      "Start time of the process since the Unix epoch in seconds.");
    cs_metrics_number(page, (double)started_wall_ms / 1000.0);
}

void cs_metrics_disk_free(cs_metrics_page *page, const char *folder)
{
    uint64_t bytes = 0;
    cs_metrics_family(page, "consilium_disk_free_bytes", CS_GAUGE, "Free bytes of the disk with the state directory.");
    if (cs_disk_free(folder, &bytes) == CS_OK)
        cs_metrics_count(page, bytes);
}
