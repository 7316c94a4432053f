/* Lists: what a session's secrets give, the own list, and one more mask on another's. Called by the worker's tasks; the
 * masking of a block is spread over the session's threads. */
#include "client/align/psi.h"

#include "client/align/list.h"
#include "common/crypto/digest.h"
#include "common/crypto/sign.h"

#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

/* A file is written in blocks of about so many points; memory and what an interrupted step repeats are one block. */
#define BLOCK_POINTS ((size_t)16384)
/* A thread takes whole vectors of the wider engine. */
#define SHARE_ITEMS 128

#define MESSAGE_BYTES (1 + CS_PSI_KEY_BYTES)
#define KIND_OF_FILL  255 /* no kind of key: what fills a group matches nothing */

static const char magic[8] = "CSALIGN1";
static const char tag_of_study[] = "consilium-align-1:";

/* ---- secrets ---- */

void cs_psi_derive(const uint8_t secret[CS_PSI_SECRET_BYTES], const char *purpose, uint64_t number,
                   uint8_t out[CS_PSI_DERIVED_BYTES])
{
    /* One length for all, so that no input is the beginning of another: SHA-512 is a keyed function of it then. */
    char label[16] = "";
    uint8_t place[8];
    assert(strlen(purpose) < sizeof label);
    memcpy(label, purpose, strlen(purpose));
    cs_store_le64(place, number);
    const cs_bytes parts[] = {cs_bytes_of(secret, CS_PSI_SECRET_BYTES), cs_bytes_of(label, sizeof label),
                              cs_bytes_of(place, sizeof place)};
    cs_sha512(parts, CS_COUNT(parts), out);
}

/* Fisher and Yates. A number below 2^24 from 64 random bits is off uniform by less than 2^-40. */
void cs_psi_shuffle(const uint8_t secret[CS_PSI_SECRET_BYTES], const char *purpose, uint32_t *numbers, size_t count)
{
    uint8_t stream[CS_PSI_DERIVED_BYTES];
    uint64_t used = 0;
    for (size_t left = count; left > 1; left--, used++) {
        if (used % 8 == 0)
            cs_psi_derive(secret, purpose, used / 8, stream);
        const uint64_t random = cs_load_le64(stream + 8 * (used % 8));
        const size_t other = (size_t)((__extension__(unsigned __int128) random * left) >> 64);
        const uint32_t moved = numbers[left - 1];
        numbers[left - 1] = numbers[other];
        numbers[other] = moved;
    }
    cs_crypto_wipe(stream, sizeof stream);
}

static void derive_scalar(const cs_psi_session *session, uint8_t scalar[CS_SCALAR_BYTES])
{
    uint8_t derived[CS_PSI_DERIVED_BYTES];
    cs_psi_derive(session->own_secret, "scalar", 0, derived);
    memcpy(scalar, derived, CS_SCALAR_BYTES);
    cs_crypto_wipe(derived, sizeof derived);
}

/* 32 bytes number `number` of a purpose: two of them in each derivation. */
static void derive_key(const uint8_t secret[CS_PSI_SECRET_BYTES], const char *purpose, uint64_t number,
                       uint8_t key[CS_PSI_KEY_BYTES])
{
    uint8_t derived[CS_PSI_DERIVED_BYTES];
    cs_psi_derive(secret, purpose, number / 2, derived);
    memcpy(key, derived + CS_PSI_KEY_BYTES * (number % 2), CS_PSI_KEY_BYTES);
    cs_crypto_wipe(derived, sizeof derived);
}

/* ---- sizes and routes ---- */

uint32_t cs_psi_padded_groups(size_t patients)
{
    const size_t wanted = patients + CS_PSI_CANARIES + CS_PSI_DUMMIES;
    size_t padded = 128;
    for (size_t step = 8; padded < wanted; padded += step)
        if (padded == 32 * step)
            step *= 2;
    return (uint32_t)padded;
}

uint32_t cs_psi_hop(uint32_t sites, uint32_t leader, uint32_t owner, uint32_t hop)
{
    assert(owner < sites && leader < sites && hop <= sites);
    if (hop == sites || (hop + 1 == sites && owner != leader))
        return leader;
    for (uint32_t i = 0, site = owner;; site = (site + 1) % sites) {
        if (site == leader && owner != leader)
            continue;
        if (i++ == hop)
            return site;
    }
}

uint64_t cs_psi_passed(const cs_psi_session *session, uint32_t owner, uint32_t hops)
{
    uint64_t passed = 0;
    for (uint32_t hop = 0; hop < hops; hop++)
        passed |= (uint64_t)1 << cs_psi_hop(session->sites, session->leader, owner, hop);
    return passed;
}

/* ---- files ---- */

static size_t unit_bytes(cs_psi_kind kind)
{
    return kind == CS_PSI_TAGS ? CS_PSI_TAG_BYTES : CS_POINT_BYTES;
}

uint64_t cs_psi_file_size(const cs_psi_header *header)
{
    return CS_PSI_HEADER_BYTES + (uint64_t)header->groups * header->slots * unit_bytes(header->kind);
}

void cs_psi_header_write(const cs_psi_header *header, uint8_t out[CS_PSI_HEADER_BYTES])
{
    memset(out, 0, CS_PSI_HEADER_BYTES);
    memcpy(out, magic, sizeof magic);
    out[8] = (uint8_t)header->kind;
    out[9] = (uint8_t)header->slots;
    out[10] = (uint8_t)header->sites;
    out[11] = (uint8_t)header->owner;
    cs_store_be32(out + 12, header->groups);
    cs_store_le64(out + 16, header->passed);
}

cs_status cs_psi_header_read(cs_bytes bytes, const char *what, cs_psi_header *ret)
{
    static const uint8_t zeros[8];
    if (bytes.size < CS_PSI_HEADER_BYTES)
        return cs_fail(CS_INVALID, "%s: expected a header of %d bytes, found %zu", what, CS_PSI_HEADER_BYTES,
                       bytes.size);
    const uint8_t *data = bytes.data;
    if (memcmp(data, magic, sizeof magic) != 0)
        return cs_fail(CS_INVALID, "%s: is not a list of an alignment: it does not begin with %.8s", what, magic);
    *ret = (cs_psi_header){.kind = (cs_psi_kind)data[8],
                           .slots = data[9],
                           .sites = data[10],
                           .owner = data[11],
                           .groups = cs_load_be32(data + 12),
                           .passed = cs_load_le64(data + 16)};
    if (ret->kind < CS_PSI_POINTS || ret->kind > CS_PSI_ANSWER)
        return cs_fail(CS_INVALID, "%s: kind %d, expected 1 (points), 2 (tags) or 3 (answer)", what, (int)ret->kind);
    if (ret->slots < 1 || ret->slots > CS_PSI_SLOTS_MAX)
        return cs_fail(CS_INVALID, "%s: %u kinds of key, expected 1 to %d", what, ret->slots, CS_PSI_SLOTS_MAX);
    if (ret->sites < 2 || ret->sites > CS_PSI_SITES_MAX || ret->owner >= ret->sites)
        return cs_fail(CS_INVALID, "%s: owner %u of %u sites, expected an owner among 2 to %d", what, ret->owner,
                       ret->sites, CS_PSI_SITES_MAX);
    if (ret->groups > CS_PSI_GROUPS_MAX)
        return cs_fail(CS_INVALID, "%s: %u groups, expected at most %u", what, ret->groups, CS_PSI_GROUPS_MAX);
    if (ret->sites < 64 && ret->passed >> ret->sites != 0)
        return cs_fail(CS_INVALID, "%s: masked by a site that is not among the %u", what, ret->sites);
    if (memcmp(data + 24, zeros, sizeof zeros) != 0)
        return cs_fail(CS_INVALID, "%s: the last 8 bytes of the header are not zero", what);
    return CS_OK;
}

cs_status cs_psi_list_open(const cs_psi_session *session, uint32_t owner, uint32_t groups, uint32_t hops,
                           const char *path, cs_fd *ret_fd, cs_psi_header *ret)
{
    assert(owner < session->sites);
    CS_AUTO(cs_string) what = cs_format("list of site '%s'", session->names[owner]);
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(path, O_RDONLY, 0, &fd));
    uint64_t size = 0;
    CS_TRY(cs_file_size(fd, &size));
    uint8_t bytes[CS_PSI_HEADER_BYTES];
    if (size < sizeof bytes)
        return cs_fail(CS_INVALID, "%s: expected a header of %d bytes, found %llu", what, CS_PSI_HEADER_BYTES,
                       (unsigned long long)size);
    CS_TRY(cs_file_pread_exact(fd, bytes, sizeof bytes, 0));
    CS_TRY(cs_psi_header_read(cs_bytes_of(bytes, sizeof bytes), what, ret));
    const cs_psi_kind kind = hops == session->sites ? CS_PSI_TAGS : CS_PSI_POINTS;
    if (ret->kind != kind)
        return cs_fail(CS_INVALID, "%s: holds %s, expected %s", what,
                       ret->kind == CS_PSI_POINTS ? "points"
                       : ret->kind == CS_PSI_TAGS ? "tags"
                                                  : "an answer",
                       kind == CS_PSI_TAGS ? "tags" : "points");
    if (ret->slots != session->slots || ret->sites != session->sites || ret->owner != owner)
        return cs_fail(CS_INVALID, "%s: of site number %u of %u with %u kinds of key, expected number %u of %u with %u",
                       what, ret->owner, ret->sites, ret->slots, owner, session->sites, session->slots);
    const uint64_t passed = cs_psi_passed(session, owner, hops);
    if (ret->passed != passed)
        return cs_fail(CS_INVALID, "%s: masked by the sites of the bits %llx, expected %llx", what,
                       (unsigned long long)ret->passed, (unsigned long long)passed);
    if (groups != 0 && ret->groups != groups)
        return cs_fail(CS_INVALID, "%s: %u groups, expected the announced %u", what, ret->groups, groups);
    if (size != cs_psi_file_size(ret))
        return cs_fail(CS_INVALID, "%s: %llu bytes, expected %llu for %u groups", what, (unsigned long long)size,
                       (unsigned long long)cs_psi_file_size(ret), ret->groups);
    *ret_fd = fd;
    fd = -1; /* the caller owns it now */
    return CS_OK;
}

/* ---- threads ---- */

typedef cs_status (*share_function)(void *self, size_t first, size_t count);

typedef struct share {
    share_function work;
    void *self;
    size_t first, count;
    cs_status status;
    char text[CS_ERROR_TEXT_BYTES]; /* sentences belong to a thread */
    pthread_t thread;
    bool has_thread;
} share;

static void *run_share(void *argument)
{
    share *mine = argument;
    mine->status = mine->work(mine->self, mine->first, mine->count);
    if (mine->status != CS_OK)
        snprintf(mine->text, sizeof mine->text, "%s", cs_error_text());
    return NULL;
}

/* Items 0 … count-1 in contiguous shares; the sentence of the first share that failed. */
static cs_status in_shares(uint32_t threads, size_t count, share_function work, void *self)
{
    const size_t each = ((count + threads - 1) / threads + SHARE_ITEMS - 1) / SHARE_ITEMS * SHARE_ITEMS;
    const size_t wanted = count == 0 ? 0 : (count + each - 1) / each;
    if (wanted <= 1)
        return count == 0 ? CS_OK : work(self, 0, count);
    share *shares = cs_alloc_array(wanted, sizeof *shares);
    for (size_t i = 0; i < wanted; i++) {
        shares[i] = (share){.work = work, .self = self, .first = i * each, .count = CS_MIN(each, count - i * each)};
        /* The last is done here, and so is one for which the system has no thread. */
        shares[i].has_thread = i + 1 < wanted && pthread_create(&shares[i].thread, NULL, run_share, &shares[i]) == 0;
        if (!shares[i].has_thread)
            run_share(&shares[i]);
    }
    cs_status status = CS_OK;
    for (size_t i = 0; i < wanted; i++) {
        if (shares[i].has_thread)
            pthread_join(shares[i].thread, NULL);
        if (status == CS_OK && shares[i].status != CS_OK)
            status = cs_fail(shares[i].status, "%s", shares[i].text);
    }
    cs_free(shares);
    return status;
}

/* ---- writing a list block by block ---- */

/* One block of a list: groups first … first + count - 1 into `out`. */
typedef cs_status (*block_function)(void *self, uint32_t first, uint32_t count, uint8_t *out);

typedef struct writing {
    const char *path;
    cs_psi_header header;
    block_function block;
    void *self;
    cs_psi_progress progress;
    void *progress_self;
} writing;

/* How many groups of an interrupted file may stay: whole blocks under the same header, if the last of them is what
 * would be written now. File systems never let a file's size run ahead of its bytes, a crash included. */
static cs_status groups_done(const writing *writing, int fd, uint32_t block_groups, uint8_t *scratch, uint32_t *ret)
{
    const cs_psi_header *header = &writing->header;
    const size_t group_bytes = header->slots * unit_bytes(header->kind);
    uint8_t wanted[CS_PSI_HEADER_BYTES], found[CS_PSI_HEADER_BYTES];
    *ret = 0;
    uint64_t size = 0;
    CS_TRY(cs_file_size(fd, &size));
    if (size < CS_PSI_HEADER_BYTES || size > cs_psi_file_size(header))
        return CS_OK;
    cs_psi_header_write(header, wanted);
    CS_TRY(cs_file_pread_exact(fd, found, sizeof found, 0));
    const uint64_t blocks = (size - CS_PSI_HEADER_BYTES) / (block_groups * group_bytes);
    if (memcmp(found, wanted, sizeof found) != 0 || blocks == 0)
        return CS_OK;
    const uint32_t last = (uint32_t)(blocks - 1) * block_groups;
    const size_t bytes = block_groups * group_bytes;
    CS_TRY(writing->block(writing->self, last, block_groups, scratch));
    CS_AUTO(cs_buffer) there = CS_BUFFER_EMPTY;
    cs_buffer_reserve(&there, bytes);
    CS_TRY(cs_file_pread_exact(fd, there.data, bytes, CS_PSI_HEADER_BYTES + (uint64_t)last * group_bytes));
    if (memcmp(there.data, scratch, bytes) == 0)
        *ret = last + block_groups;
    return CS_OK;
}

static cs_status write_blocks(const writing *writing, int fd, uint8_t *block)
{
    const cs_psi_header *header = &writing->header;
    const size_t group_bytes = header->slots * unit_bytes(header->kind);
    const uint32_t block_groups = (uint32_t)(BLOCK_POINTS / header->slots);
    uint32_t done = 0;
    CS_TRY(groups_done(writing, fd, block_groups, block, &done));
    if (done == 0) {
        uint8_t bytes[CS_PSI_HEADER_BYTES];
        cs_psi_header_write(header, bytes);
        CS_TRY(cs_file_truncate(fd, 0));
        CS_TRY(cs_file_pwrite(fd, bytes, sizeof bytes, 0));
    }
    CS_TRY(cs_file_truncate(fd, CS_PSI_HEADER_BYTES + (uint64_t)done * group_bytes));
    while (done < header->groups) {
        const uint32_t now = CS_MIN(block_groups, header->groups - done);
        CS_TRY(writing->block(writing->self, done, now, block));
        CS_TRY(cs_file_pwrite(fd, block, now * group_bytes, CS_PSI_HEADER_BYTES + (uint64_t)done * group_bytes));
        done += now;
        if (writing->progress != NULL)
            CS_TRY(writing->progress(writing->progress_self, (uint64_t)done * header->slots,
                                     (uint64_t)header->groups * header->slots));
    }
    return cs_file_sync(fd);
}

static cs_status write_list(const writing *writing)
{
    CS_AUTO(cs_string) part = cs_format("%s.part", writing->path);
    CS_AUTO(cs_fd) fd = -1;
    CS_TRY(cs_file_open(part, O_RDWR | O_CREAT, 0600, &fd));
    uint8_t *block = cs_alloc(BLOCK_POINTS * CS_POINT_BYTES);
    const cs_status status = write_blocks(writing, fd, block);
    cs_free(block);
    CS_TRY(status);
    CS_TRY(cs_file_close(&fd));
    return cs_file_rename(part, writing->path);
}

/* ---- own list ---- */

static const uint8_t *key_of(const cs_psi_own *own, size_t record, uint32_t slot)
{
    return own->keys[record * own->stride + slot];
}

static cs_status check_session(const cs_psi_session *session)
{
    const size_t study = strlen(session->study);
    if (study < 1 || study > CS_PSI_STUDY_BYTES)
        return cs_fail(CS_INVALID, "name of the study: %zu bytes, expected 1 to %d", study, CS_PSI_STUDY_BYTES);
    if (session->slots < 1 || session->slots > CS_PSI_SLOTS_MAX)
        return cs_fail(CS_INVALID, "%u kinds of key, expected 1 to %d", session->slots, CS_PSI_SLOTS_MAX);
    if (session->sites < 2 || session->sites > CS_PSI_SITES_MAX)
        return cs_fail(CS_INVALID, "an alignment of %u sites, expected 2 to %d", session->sites, CS_PSI_SITES_MAX);
    assert(session->site < session->sites && session->leader < session->sites && session->threads > 0);
    return CS_OK;
}

static cs_status fill_own(cs_psi_own *own, const uint8_t *present)
{
    CS_TRY(cs_psi_sort_out(own->keys, own->stride, own->session->slots, present, own->counts.records, own->usable,
                           &own->counts));
    uint32_t listed = 0;
    for (size_t i = 0; i < own->counts.records; i++)
        if (own->usable[i] != 0)
            own->record_of[listed++] = (uint32_t)i;
    void *memory = NULL;
    CS_TRY(cs_alloc_peer(own->counts.groups, sizeof *own->item_at, "order of the list", &memory));
    own->item_at = memory;
    for (uint32_t i = 0; i < own->counts.groups; i++)
        own->item_at[i] = i;
    cs_psi_shuffle(own->session->own_secret, "order", own->item_at, own->counts.groups);
    return CS_OK;
}

cs_status cs_psi_own_new(const cs_psi_session *session, const uint8_t (*keys)[CS_PSI_KEY_BYTES], size_t stride,
                         const uint8_t *present, size_t count, cs_psi_own **ret)
{
    CS_TRY(check_session(session));
    assert(stride >= session->slots);
    const size_t most = CS_PSI_GROUPS_MAX - CS_PSI_CANARIES - CS_PSI_DUMMIES;
    if (count > most)
        return cs_fail(CS_EXHAUSTED, "%zu records, an alignment takes at most %zu", count, most);
    CS_AUTO_PTR(cs_psi_own) own = cs_alloc(sizeof *own);
    own->session = session;
    own->keys = keys;
    own->stride = stride;
    own->counts.records = count;
    void *memory = NULL;
    CS_TRY(cs_alloc_peer(count + 1, sizeof *own->usable, "kinds of key", &memory));
    own->usable = memory;
    CS_TRY(cs_alloc_peer(count + 1, sizeof *own->record_of, "records of the list", &memory));
    own->record_of = memory;
    CS_TRY(fill_own(own, present));
    *ret = CS_TAKE(own);
    return CS_OK;
}

void cs_psi_own_free(cs_psi_own *own)
{
    if (own == NULL)
        return;
    if (own->item_at != NULL)
        cs_crypto_wipe(own->item_at, own->counts.groups * sizeof *own->item_at);
    cs_free(own->item_at);
    cs_free(own->record_of);
    cs_free(own->usable);
    cs_free(own);
}

cs_psi_counts cs_psi_own_counts(const cs_psi_own *own)
{
    return own->counts;
}

/* What is hashed for one place of the list: kind of key, then the key. */
static void write_message(const cs_psi_own *own, uint32_t item, uint32_t slot, uint8_t message[MESSAGE_BYTES])
{
    const cs_psi_session *session = own->session;
    message[0] = (uint8_t)slot;
    if (cs_psi_is_canary(own, item)) {
        derive_key(session->shared_secret, "canary", (item - own->counts.listed) * session->slots + slot, message + 1);
    } else if (cs_psi_is_patient(own, item) && (own->usable[own->record_of[item]] >> slot & 1)) {
        memcpy(message + 1, key_of(own, own->record_of[item], slot), CS_PSI_KEY_BYTES);
    } else {
        message[0] = KIND_OF_FILL;
        derive_key(session->own_secret, "fill", (uint64_t)item * session->slots + slot, message + 1);
    }
}

typedef struct own_block {
    const cs_psi_own *own;
    uint32_t first;
    uint8_t *out;
    uint8_t dst[CS_CURVE_DST_BYTES], scalar[CS_SCALAR_BYTES];
    size_t dst_size;
} own_block;

/* Groups of the block, in portions that stay in the cache. */
static cs_status mask_own_share(void *self, size_t first, size_t count)
{
    enum { PORTION_GROUPS = 128 };
    const own_block *block = self;
    const cs_psi_session *session = block->own->session;
    uint8_t messages[PORTION_GROUPS * CS_PSI_SLOTS_MAX * MESSAGE_BYTES];
    for (size_t start = first; start < first + count; start += PORTION_GROUPS) {
        const size_t now = CS_MIN((size_t)PORTION_GROUPS, first + count - start), points = now * session->slots;
        for (size_t i = 0; i < points; i++)
            write_message(block->own, block->own->item_at[block->first + start + i / session->slots],
                          (uint32_t)(i % session->slots), messages + i * MESSAGE_BYTES);
        uint8_t *out = block->out + start * session->slots * CS_POINT_BYTES;
        cs_curve_hash(session->engine, cs_bytes_of(block->dst, block->dst_size), messages, MESSAGE_BYTES, points, out);
        cs_curve_x25519(session->engine, block->scalar, out, points, out);
    }
    cs_crypto_wipe(messages, sizeof messages);
    return CS_OK;
}

static cs_status mask_own_block(void *self, uint32_t first, uint32_t count, uint8_t *out)
{
    own_block *block = self;
    block->first = first;
    block->out = out;
    return in_shares(block->own->session->threads, count, mask_own_share, block);
}

cs_status cs_psi_own_write(const cs_psi_own *own, const char *path, cs_psi_progress progress, void *self)
{
    const cs_psi_session *session = own->session;
    own_block block = {.own = own, .dst_size = strlen(tag_of_study) + strlen(session->study)};
    memcpy(block.dst, tag_of_study, strlen(tag_of_study));
    memcpy(block.dst + strlen(tag_of_study), session->study, strlen(session->study));
    derive_scalar(session, block.scalar);
    const writing writing = {.path = path,
                             .header = {.kind = CS_PSI_POINTS,
                                        .slots = session->slots,
                                        .sites = session->sites,
                                        .owner = session->site,
                                        .groups = own->counts.groups,
                                        .passed = (uint64_t)1 << session->site},
                             .block = mask_own_block,
                             .self = &block,
                             .progress = progress,
                             .progress_self = self};
    const cs_status status = write_list(&writing);
    cs_crypto_wipe(block.scalar, sizeof block.scalar);
    return status;
}

/* ---- another's list ---- */

typedef struct pass_block {
    const cs_psi_session *session;
    int fd;
    uint32_t slots;
    uint64_t first_point;
    uint8_t *points;
    bool to_tags;
    uint8_t *out;
    uint8_t scalar[CS_SCALAR_BYTES];
} pass_block;

static cs_status mask_share(void *self, size_t first, size_t count)
{
    const pass_block *block = self;
    uint8_t *points = block->points + first * CS_POINT_BYTES;
    CS_TRY(cs_curve_mask(block->session->engine, block->scalar, points, count, block->first_point + first, points));
    /* The low bytes of a coordinate that, to whoever lacks one of the scalars, is a random one: no hash is needed. */
    const size_t unit = block->to_tags ? CS_PSI_TAG_BYTES : CS_POINT_BYTES;
    for (size_t i = 0; i < count; i++)
        memcpy(block->out + (first + i) * unit, points + i * CS_POINT_BYTES, unit);
    return CS_OK;
}

static cs_status mask_block(void *self, uint32_t first, uint32_t count, uint8_t *out)
{
    pass_block *block = self;
    const size_t points = (size_t)count * block->slots;
    block->first_point = (uint64_t)first * block->slots;
    block->out = out;
    CS_TRY(cs_file_pread_exact(block->fd, block->points, points * CS_POINT_BYTES,
                               CS_PSI_HEADER_BYTES + block->first_point * CS_POINT_BYTES));
    return in_shares(block->session->threads, points, mask_share, block);
}

cs_status cs_psi_pass(const cs_psi_session *session, uint32_t owner, uint32_t groups, const char *from, const char *to,
                      cs_psi_progress progress, void *self)
{
    CS_TRY(check_session(session));
    assert(owner < session->sites && owner != session->site);
    uint32_t hop = 1;
    while (cs_psi_hop(session->sites, session->leader, owner, hop) != session->site)
        hop++;
    pass_block block = {.session = session, .slots = session->slots, .to_tags = hop + 1 == session->sites};
    CS_AUTO(cs_fd) fd = -1;
    cs_psi_header header;
    CS_TRY(cs_psi_list_open(session, owner, groups, hop, from, &fd, &header));
    block.fd = fd;
    block.points = cs_alloc(BLOCK_POINTS * CS_POINT_BYTES);
    derive_scalar(session, block.scalar);
    header.passed |= (uint64_t)1 << session->site;
    if (block.to_tags)
        header.kind = CS_PSI_TAGS;
    const writing writing = {
        .path = to, .header = header, .block = mask_block, .self = &block, .progress = progress, .progress_self = self};
    cs_status status = write_list(&writing);
    if (status == CS_INVALID)
        status = cs_wrap(status, "list of site '%s'", session->names[owner]);
    cs_crypto_wipe(block.scalar, sizeof block.scalar);
    cs_free(block.points);
    return status;
}
