/* What goes between this site and the others in an alignment: which blobs there are, sealing and opening them. Work
 * lane; see alignment.h. */
#include "client/agent/alignment.h"
#include "common/base/failpoint.h"
#include "common/base/file.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* An answer names a row for each of the list's patients at most, with room for its checks. */
#define ANSWER_BYTES_PER_GROUP 16
/* No worker's list is larger; whether it is allowed follows from its header. */
#define FILE_MAX_BYTES (1ULL << 40)

static void add(cs_parcel *parcel, const char *kind, cs_psi_kind content, uint32_t owner, uint32_t other,
                const char *phase)
{
    *parcel = (cs_parcel){.kind = content, .owner = owner, .other = other};
    snprintf(parcel->name, sizeof(parcel->name), "%s-%" PRIu32, kind, owner);
    snprintf(parcel->phase, sizeof(parcel->phase), "%.23s", phase);
}

static void stop_phase(uint32_t stop, char ret[24])
{
    if (stop == 0)
        snprintf(ret, 24, "mask");
    else
        snprintf(ret, 24, "hop%" PRIu32, stop);
}

/* A list that every party has masked is tags. */
static cs_psi_kind kind_after(const cs_sealing *sealing, uint32_t stop)
{
    return stop + 1 == sealing->parties ? CS_PSI_TAGS : CS_PSI_POINTS;
}

size_t cs_parcels_in(const cs_sealing *sealing, const char *phase, cs_parcel ret[CS_ALIGNMENT_SITES_MAX])
{
    cs_alignment_step step;
    uint32_t stop = 0;
    size_t count = 0;
    char before[24];
    if (!cs_alignment_phase(phase, sealing->parties, &step, &stop))
        return 0;
    if (step == CS_ALIGNMENT_COHORT) {
        add(&ret[0], "answer", CS_PSI_ANSWER, sealing->self, sealing->leader, "compare");
        return 1;
    }
    if (stop == 0)
        return 0;
    stop_phase(stop - 1, before);
    for (uint32_t owner = 0; owner < sealing->parties; owner++) {
        const uint32_t from = cs_alignment_stop(sealing->parties, sealing->leader, owner, stop - 1);
        if (cs_alignment_stop(sealing->parties, sealing->leader, owner, stop) == sealing->self && from != sealing->self)
            add(&ret[count++], "list", kind_after(sealing, stop - 1), owner, from, before);
    }
    return count;
}

size_t cs_parcels_out(const cs_sealing *sealing, const char *phase, cs_parcel ret[CS_ALIGNMENT_SITES_MAX])
{
    cs_alignment_step step;
    uint32_t stop = 0;
    size_t count = 0;
    if (!cs_alignment_phase(phase, sealing->parties, &step, &stop))
        return 0;
    for (uint32_t owner = 0; owner < sealing->parties; owner++) {
        if (step == CS_ALIGNMENT_COMPARE && owner != sealing->self && sealing->self == sealing->leader)
            add(&ret[count++], "answer", CS_PSI_ANSWER, owner, owner, phase);
        if (step != CS_ALIGNMENT_MASK && step != CS_ALIGNMENT_HOP)
            continue;
        const uint32_t to = cs_alignment_stop(sealing->parties, sealing->leader, owner, stop + 1);
        if (cs_alignment_stop(sealing->parties, sealing->leader, owner, stop) == sealing->self && to != sealing->self)
            add(&ret[count++], "list", kind_after(sealing, stop), owner, to, phase);
    }
    return count;
}

static uint64_t largest(const cs_sealing *sealing, cs_psi_kind kind)
{
    const cs_psi_header header = {
        .kind = kind, .slots = sealing->slots, .sites = sealing->parties, .groups = sealing->groups_max};
    return kind == CS_PSI_ANSWER
               ? CS_PSI_HEADER_BYTES + (uint64_t)ANSWER_BYTES_PER_GROUP * (sealing->groups_max + CS_PSI_CANARIES)
               : cs_psi_file_size(&header);
}

/* Is it the list or answer that it should be, and of a size that is allowed? */
static cs_status check_header(const cs_sealing *sealing, const cs_parcel *parcel, cs_bytes bytes, uint64_t size,
                              uint64_t *ret_points)
{
    cs_psi_header header;
    const char *owner = sealing->names[parcel->owner];
    CS_TRY(cs_psi_header_read(bytes, parcel->name, &header));
    if (header.kind != parcel->kind || header.owner != parcel->owner || header.slots != sealing->slots ||
        header.sites != sealing->parties)
        return cs_fail(CS_INVALID, "%s: it is not the one of site '%s' in this step", parcel->name, owner);
    *ret_points = 0;
    if (parcel->kind == CS_PSI_ANSWER)
        return CS_OK;
    if (header.groups > sealing->groups_max)
        return cs_fail(CS_DENIED,
                       "the list of site '%s' has %" PRIu32 " patients, padding included; the plan's cohort and this "
                       "site's policy allow %" PRIu32,
                       owner, header.groups, sealing->groups_max);
    if (size != cs_psi_file_size(&header))
        return cs_fail(CS_INVALID, "%s: %" PRIu64 " bytes, its header says %" PRIu64, parcel->name, size,
                       cs_psi_file_size(&header));
    *ret_points = (uint64_t)header.groups * header.slots;
    return CS_OK;
}

static cs_seal_label label_of(const cs_sealing *sealing, const cs_parcel *parcel, uint32_t from, uint32_t to)
{
    return (cs_seal_label){.session = &sealing->session,
                           .roster = &sealing->roster,
                           .phase = parcel->phase,
                           .from = sealing->names[from],
                           .to = sealing->names[to]};
}

/* ---- open ---- */

static cs_status open_frames(int from, int to, uint64_t plain_size, const cs_sealing *sealing, const cs_parcel *parcel,
                             cs_seal *seal)
{
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) plain = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&frame, CS_SEAL_FRAME_BYTES + CS_SEAL_OVERHEAD_BYTES);
    cs_buffer_reserve(&plain, CS_SEAL_FRAME_BYTES);
    uint64_t points = 0;
    for (uint64_t done = 0; done < plain_size;) {
        const size_t now = (size_t)CS_MIN(plain_size - done, (uint64_t)CS_SEAL_FRAME_BYTES);
        CS_TRY(cs_file_read_exact(from, frame.data, now + CS_SEAL_OVERHEAD_BYTES));
        CS_TRY(cs_unseal_frame(seal, cs_bytes_of(frame.data, now + CS_SEAL_OVERHEAD_BYTES), done + now == plain_size,
                               plain.data));
        if (done == 0)
            CS_TRY(check_header(sealing, parcel, cs_bytes_of(plain.data, CS_MIN(now, (size_t)CS_PSI_HEADER_BYTES)),
                                plain_size, &points));
        CS_TRY(cs_file_write(to, plain.data, now));
        done += now;
    }
    return CS_OK;
}

cs_status cs_parcel_open(cs_blobs *blobs, const cs_hash *blob, const cs_sealing *sealing, const cs_parcel *parcel,
                         const char *folder)
{
    CS_AUTO(cs_fd) from = -1;
    CS_AUTO(cs_fd) to = -1;
    uint64_t size = 0, plain_size = 0;
    uint8_t header[CS_SEAL_HEADER_BYTES];
    CS_TRY(cs_blobs_open_read(blobs, blob, &from, &size));
    CS_TRY(cs_unsealed_size(size, &plain_size));
    if (plain_size > largest(sealing, parcel->kind))
        return cs_fail(CS_DENIED,
                       "%s from site '%s' has %" PRIu64
                       " bytes; the plan's cohort and this site's policy allow %" PRIu64,
                       parcel->name, sealing->names[parcel->other], plain_size, largest(sealing, parcel->kind));
    if (plain_size == 0)
        return cs_fail(CS_INVALID, "%s from site '%s' is empty", parcel->name, sealing->names[parcel->other]);
    CS_TRY(cs_file_read_exact(from, header, sizeof(header)));
    const cs_seal_label label = label_of(sealing, parcel, parcel->other, sealing->self);
    CS_AUTO_PTR(cs_seal) seal = NULL;
    CS_TRY(cs_unseal_begin(sealing->keys[parcel->other].receive, &label, header, &seal));
    CS_FAILPOINT("agent.parcel.open");
    CS_AUTO(cs_string) path = cs_path_join(folder, parcel->name);
    CS_TRY(cs_file_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600, &to));
    CS_TRY(open_frames(from, to, plain_size, sealing, parcel, seal));
    return cs_file_close(&to);
}

/* ---- seal ---- */

static cs_status seal_frames(int from, int to, uint64_t size, const cs_sealing *sealing, const cs_parcel *parcel,
                             cs_seal *seal, uint64_t *ret_points)
{
    CS_AUTO(cs_buffer) frame = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) plain = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&frame, CS_SEAL_FRAME_BYTES + CS_SEAL_OVERHEAD_BYTES);
    cs_buffer_reserve(&plain, CS_SEAL_FRAME_BYTES);
    uint64_t done = 0;
    do {
        const size_t now = (size_t)CS_MIN(size - done, (uint64_t)CS_SEAL_FRAME_BYTES);
        if (now > 0)
            CS_TRY(cs_file_read_exact(from, plain.data, now));
        if (done == 0 && size > 0)
            CS_TRY(check_header(sealing, parcel, cs_bytes_of(plain.data, CS_MIN(now, (size_t)CS_PSI_HEADER_BYTES)),
                                size, ret_points));
        cs_seal_frame(seal, cs_bytes_of(plain.data, now), done + now == size, frame.data);
        CS_TRY(cs_file_write(to, frame.data, now + CS_SEAL_OVERHEAD_BYTES));
        done += now;
    } while (done < size);
    return CS_OK;
}

/* `from`: -1 for an empty stream. */
static cs_status seal_file(int from, uint64_t size, const cs_sealing *sealing, const cs_parcel *parcel,
                           const char *staging_path, uint64_t *ret_points)
{
    CS_AUTO(cs_fd) to = -1;
    uint8_t header[CS_SEAL_HEADER_BYTES];
    const cs_seal_label label = label_of(sealing, parcel, sealing->self, parcel->other);
    CS_TRY(cs_file_open(staging_path, O_WRONLY | O_CREAT | O_TRUNC, 0600, &to));
    CS_AUTO_PTR(cs_seal) seal = cs_seal_begin(sealing->keys[parcel->other].send, &label, header);
    CS_TRY(cs_file_write(to, header, sizeof(header)));
    CS_TRY(seal_frames(from, to, size, sealing, parcel, seal, ret_points));
    CS_FAILPOINT("agent.parcel.seal");
    return cs_file_close(&to);
}

static cs_status adopt(cs_blobs *blobs, cs_status sealed, const char *staging_path, cs_hash *ret, uint64_t *ret_size)
{
    if (sealed == CS_OK)
        return cs_blobs_adopt(blobs, staging_path, ret, ret_size);
    CS_AUTO(cs_string) sentence = cs_strdup(cs_error_text());
    CS_IGNORE(cs_file_remove(staging_path), "the folder is emptied at the next start");
    return cs_fail(sealed, "%s", sentence);
}

cs_status cs_parcel_take(cs_blobs *blobs, const cs_sealing *sealing, const cs_parcel *parcel, const char *folder,
                         const char *file, const char *staging_path, cs_hash *ret, uint64_t *ret_size,
                         uint64_t *ret_points)
{
    CS_AUTO(cs_fd) inside = -1;
    CS_AUTO(cs_fd) written = -1;
    uint64_t size = 0;
    CS_TRY(cs_file_open(folder, O_RDONLY | O_DIRECTORY, 0, &inside));
    CS_TRY(cs_file_open_beneath(inside, file, FILE_MAX_BYTES, &written, &size));
    if (size < CS_PSI_HEADER_BYTES || (parcel->kind == CS_PSI_ANSWER && size > largest(sealing, parcel->kind)))
        return cs_fail(CS_INVALID, "%s: the worker wrote %" PRIu64 " bytes", parcel->name, size);
    return adopt(blobs, seal_file(written, size, sealing, parcel, staging_path, ret_points), staging_path, ret,
                 ret_size);
}

cs_status cs_parcel_empty(cs_blobs *blobs, const cs_sealing *sealing, const cs_parcel *parcel, const char *staging_path,
                          cs_hash *ret, uint64_t *ret_size)
{
    uint64_t points = 0;
    return adopt(blobs, seal_file(-1, 0, sealing, parcel, staging_path, &points), staging_path, ret, ret_size);
}
