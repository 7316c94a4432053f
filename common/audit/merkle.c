/* The Merkle tree of RFC 6962 section 2.1, its proofs, and their verification (RFC 9162 sections 2.1.3.2 and 2.1.4.2).
 * The transcript and the offline verifiers call it; a tree belongs to one thread. */
#include "common/audit/transcript.h"

#include <inttypes.h>
#include <string.h>

#define LEAF_PREFIX 0x00
#define NODE_PREFIX 0x01
#define LEVELS      64

/* The hashes of all complete subtrees: level k holds those of 2^k leaves, from the left. Two hashes a leaf in all, and
 * every root and proof is a handful of look-ups. */
struct cs_merkle {
    cs_buffer levels[LEVELS];
    uint64_t size;
};

cs_merkle *cs_merkle_new(void)
{
    return cs_alloc(sizeof(cs_merkle));
}

void cs_merkle_free(cs_merkle *tree)
{
    if (!tree)
        return;
    for (size_t i = 0; i < LEVELS; i++)
        cs_buffer_clear(&tree->levels[i]);
    cs_free(tree);
}

cs_hash cs_merkle_leaf(cs_bytes leaf)
{
    static const uint8_t prefix = LEAF_PREFIX;
    CS_AUTO_PTR(cs_digest) digest = cs_digest_new();
    cs_digest_add(digest, &prefix, 1);
    cs_digest_add(digest, leaf.data, leaf.size);
    return cs_digest_end(digest);
}

static cs_hash node_hash(const cs_hash *left, const cs_hash *right)
{
    uint8_t bytes[1 + 2 * CS_HASH_BYTES] = {NODE_PREFIX};
    memcpy(bytes + 1, left->bytes, CS_HASH_BYTES);
    memcpy(bytes + 1 + CS_HASH_BYTES, right->bytes, CS_HASH_BYTES);
    return cs_sha256(cs_bytes_of(bytes, sizeof bytes));
}

static cs_hash hash_at(const cs_buffer *hashes, uint64_t index)
{
    cs_hash hash;
    memcpy(hash.bytes, hashes->data + index * CS_HASH_BYTES, CS_HASH_BYTES);
    return hash;
}

void cs_merkle_add(cs_merkle *tree, cs_bytes leaf)
{
    cs_hash hash = cs_merkle_leaf(leaf);
    uint64_t index = tree->size++;
    cs_buffer_append(&tree->levels[0], hash.bytes, CS_HASH_BYTES);
    /* A right child completes its parent. */
    for (size_t level = 0; index % 2 == 1; level++, index /= 2) {
        cs_hash left = hash_at(&tree->levels[level], index - 1);
        hash = node_hash(&left, &hash);
        cs_buffer_append(&tree->levels[level + 1], hash.bytes, CS_HASH_BYTES);
    }
}

uint64_t cs_merkle_size(const cs_merkle *tree)
{
    return tree->size;
}

/* RFC 6962: k, the largest power of two smaller than n; n > 1. */
static uint64_t split_of(uint64_t n)
{
    return UINT64_C(1) << (63 - __builtin_clzll(n - 1));
}

/* MTH(D[start:start + n]), n > 0. The proofs ask only for ranges that begin at a multiple of the power of two that
 * covers them, so a power of two is a complete subtree. */
static cs_hash range_hash(const cs_merkle *tree, uint64_t start, uint64_t n)
{
    if ((n & (n - 1)) == 0) {
        unsigned level = (unsigned)__builtin_ctzll(n);
        return hash_at(&tree->levels[level], start >> level);
    }
    uint64_t k = split_of(n);
    cs_hash left = range_hash(tree, start, k);
    cs_hash right = range_hash(tree, start + k, n - k);
    return node_hash(&left, &right);
}

cs_hash cs_merkle_root(const cs_merkle *tree, uint64_t size)
{
    size = CS_MIN(size, tree->size);
    return size == 0 ? cs_sha256((cs_bytes){NULL, 0}) : range_hash(tree, 0, size);
}

static void append_range(const cs_merkle *tree, uint64_t start, uint64_t n, cs_buffer *ret)
{
    cs_hash hash = range_hash(tree, start, n);
    cs_buffer_append(ret, hash.bytes, CS_HASH_BYTES);
}

/* PATH(m, D[start:start + n]) */
static void path(const cs_merkle *tree, uint64_t m, uint64_t start, uint64_t n, cs_buffer *ret)
{
    if (n == 1)
        return;
    uint64_t k = split_of(n);
    if (m < k) {
        path(tree, m, start, k, ret);
        append_range(tree, start + k, n - k, ret);
    } else {
        path(tree, m - k, start + k, n - k, ret);
        append_range(tree, start, k, ret);
    }
}

/* SUBPROOF(m, D[start:start + n], is_root) */
static void subproof(const cs_merkle *tree, uint64_t m, uint64_t start, uint64_t n, bool is_root, cs_buffer *ret)
{
    if (m == n) {
        if (!is_root)
            append_range(tree, start, n, ret);
        return;
    }
    uint64_t k = split_of(n);
    if (m <= k) {
        subproof(tree, m, start, k, is_root, ret);
        append_range(tree, start + k, n - k, ret);
    } else {
        subproof(tree, m - k, start + k, n - k, false, ret);
        append_range(tree, start, k, ret);
    }
}

cs_status cs_merkle_inclusion(const cs_merkle *tree, uint64_t index, uint64_t size, cs_buffer *ret)
{
    if (size > tree->size || index >= size)
        return cs_fail(CS_RANGE, "no record %" PRIu64 " among the first %" PRIu64 "; there are %" PRIu64, index, size,
                       tree->size);
    path(tree, index, 0, size, ret);
    return CS_OK;
}

cs_status cs_merkle_consistency(const cs_merkle *tree, uint64_t old_size, uint64_t size, cs_buffer *ret)
{
    if (size > tree->size || old_size > size)
        return cs_fail(CS_RANGE, "no proof from %" PRIu64 " to %" PRIu64 " records; there are %" PRIu64, old_size, size,
                       tree->size);
    if (old_size > 0)
        subproof(tree, old_size, 0, size, true, ret);
    return CS_OK;
}

/* Takes the next hash off a path; false at its end. */
static bool take(cs_bytes *rest, cs_hash *ret)
{
    if (rest->size < CS_HASH_BYTES)
        return false;
    memcpy(ret->bytes, rest->data, CS_HASH_BYTES);
    *rest = cs_bytes_of(rest->data + CS_HASH_BYTES, rest->size - CS_HASH_BYTES);
    return true;
}

bool cs_merkle_verify_inclusion(const cs_hash *leaf, uint64_t index, uint64_t size, cs_bytes path, const cs_hash *root)
{
    if (index >= size)
        return false;
    uint64_t node = index;
    uint64_t last = size - 1;
    cs_hash hash = *leaf;
    cs_hash next;
    while (take(&path, &next)) {
        if (last == 0)
            return false;
        if (node % 2 == 1 || node == last) {
            hash = node_hash(&next, &hash);
            while (node % 2 == 0 && node != 0) {
                node /= 2;
                last /= 2;
            }
        } else {
            hash = node_hash(&hash, &next);
        }
        node /= 2;
        last /= 2;
    }
    return last == 0 && path.size == 0 && cs_hash_equal(&hash, root);
}

bool cs_merkle_verify_consistency(uint64_t old_size, const cs_hash *old_root, uint64_t size, const cs_hash *root,
                                  cs_bytes path)
{
    if (old_size > size)
        return false;
    if (old_size == size)
        return path.size == 0 && cs_hash_equal(old_root, root);
    if (old_size == 0) {
        cs_hash empty = cs_sha256((cs_bytes){NULL, 0});
        return path.size == 0 && cs_hash_equal(old_root, &empty);
    }

    uint64_t node = old_size - 1;
    uint64_t last = size - 1;
    while (node % 2 == 1) {
        node /= 2;
        last /= 2;
    }
    cs_hash old_hash = *old_root; /* an old tree of 2^k leaves is a node itself, and not in the path */
    if (node != 0 && !take(&path, &old_hash))
        return false;
    cs_hash hash = old_hash;
    cs_hash next;
    while (take(&path, &next)) {
        if (last == 0)
            return false;
        if (node % 2 == 1 || node == last) {
            old_hash = node_hash(&next, &old_hash);
            hash = node_hash(&next, &hash);
            while (node % 2 == 0 && node != 0) {
                node /= 2;
                last /= 2;
            }
        } else {
            hash = node_hash(&hash, &next);
        }
        node /= 2;
        last /= 2;
    }
    return last == 0 && path.size == 0 && cs_hash_equal(&old_hash, old_root) && cs_hash_equal(&hash, root);
}
