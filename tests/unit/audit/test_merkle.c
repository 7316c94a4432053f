/* The Merkle tree against the reference test set of RFC 6962, against the definition, and against forged proofs. */
#include "common/audit/transcript.h"
#include "tests/unit/place.h"

#define SIZE_MAX_TESTED 64

static const char *const leaves[] = {
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
};

/* Roots of the first 1 … 8 leaves, from the reference implementation's test. */
static const char *const roots[] = {
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
};

static cs_hash hash_of(const char *hex)
{
    cs_hash hash;
    assert_ok(cs_hash_parse(hex, "hash", &hash));
    return hash;
}

static cs_merkle *reference_tree(void)
{
    cs_merkle *tree = cs_merkle_new();
    for (size_t i = 0; i < CS_COUNT(leaves); i++) {
        uint8_t bytes[16];
        size_t size = strlen(leaves[i]) / 2;
        assert_ok(cs_hex_decode(leaves[i], 2 * size, "leaf", bytes, size));
        cs_merkle_add(tree, cs_bytes_of(bytes, size));
    }
    return tree;
}

/* Leaf i is the number i in eight bytes. */
static cs_merkle *tree_of(uint64_t size)
{
    cs_merkle *tree = cs_merkle_new();
    for (uint64_t i = 0; i < size; i++) {
        uint8_t bytes[8];
        cs_store_le64(bytes, i);
        cs_merkle_add(tree, cs_bytes_of(bytes, sizeof bytes));
    }
    return tree;
}

static cs_hash leaf_of(uint64_t index)
{
    uint8_t bytes[8];
    cs_store_le64(bytes, index);
    return cs_merkle_leaf(cs_bytes_of(bytes, sizeof bytes));
}

/* RFC 6962 section 2.1, word for word. */
static cs_hash defined_root(uint64_t start, uint64_t end)
{
    if (end - start == 1)
        return leaf_of(start);
    uint64_t k = 1;
    while (2 * k < end - start)
        k *= 2;
    cs_hash left = defined_root(start, start + k);
    cs_hash right = defined_root(start + k, end);
    uint8_t bytes[65] = {1};
    memcpy(bytes + 1, left.bytes, 32);
    memcpy(bytes + 33, right.bytes, 32);
    return cs_sha256(cs_bytes_of(bytes, sizeof bytes));
}

static void the_roots_are_those_of_the_reference(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_merkle) tree = reference_tree();
    cs_hash empty = hash_of("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    cs_hash root = cs_merkle_root(tree, 0);
    assert_true(cs_hash_equal(&root, &empty));
    for (size_t size = 1; size <= CS_COUNT(roots); size++) {
        cs_hash expected = hash_of(roots[size - 1]);
        root = cs_merkle_root(tree, size);
        assert_true(cs_hash_equal(&root, &expected));
    }
    cs_hash beyond = cs_merkle_root(tree, 99);
    assert_true(cs_hash_equal(&root, &beyond));
}

static void assert_path(cs_bytes path, const char *const *expected, size_t count)
{
    assert_int_equal(path.size, count * CS_HASH_BYTES);
    for (size_t i = 0; i < count; i++) {
        cs_hash hash = hash_of(expected[i]);
        assert_memory_equal(path.data + i * CS_HASH_BYTES, hash.bytes, CS_HASH_BYTES);
    }
}

static void the_proofs_are_those_of_the_reference(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_merkle) tree = reference_tree();
    static const char *const inclusion_5_of_8[] = {
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    };
    static const char *const consistency_6_to_8[] = {
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    };
    CS_AUTO(cs_buffer) inclusion = CS_BUFFER_EMPTY;
    CS_AUTO(cs_buffer) consistency = CS_BUFFER_EMPTY;

    assert_ok(cs_merkle_inclusion(tree, 5, 8, &inclusion));
    assert_ok(cs_merkle_consistency(tree, 6, 8, &consistency));

    assert_path(cs_buffer_view(&inclusion), inclusion_5_of_8, 3);
    assert_path(cs_buffer_view(&consistency), consistency_6_to_8, 3);
}

static void every_root_up_to_64_leaves_is_the_one_of_the_definition(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_merkle) tree = tree_of(SIZE_MAX_TESTED);
    for (uint64_t size = 1; size <= SIZE_MAX_TESTED; size++) {
        cs_hash expected = defined_root(0, size);
        cs_hash root = cs_merkle_root(tree, size);
        assert_true(cs_hash_equal(&root, &expected));
    }
}

/* Changes a proof in every way that matters and expects `verify` to refuse each. */
static void assert_mutations_refused(const cs_buffer *path, bool (*verify)(void *self, cs_bytes path), void *self)
{
    uint8_t changed[66 * CS_HASH_BYTES] = {0};
    assert_true(verify(self, cs_buffer_view(path)));
    for (size_t i = 0; i < path->size; i += 7) {
        memcpy(changed, path->data, path->size);
        changed[i] ^= 1;
        assert_false(verify(self, cs_bytes_of(changed, path->size)));
    }
    if (path->size > 0) {
        assert_false(verify(self, cs_bytes_of(path->data, path->size - CS_HASH_BYTES)));
        assert_false(verify(self, cs_bytes_of(path->data, path->size - 1)));
        memcpy(changed, path->data, path->size);
    }
    assert_false(verify(self, cs_bytes_of(changed, path->size + 1)));
    assert_false(verify(self, cs_bytes_of(changed, path->size + CS_HASH_BYTES)));
    if (path->size > 0)
        memcpy(changed + path->size, path->data, CS_HASH_BYTES);
    assert_false(verify(self, cs_bytes_of(changed, path->size + CS_HASH_BYTES)));
}

struct inclusion {
    uint64_t index, size;
    cs_hash leaf, root;
};

static bool verify_inclusion(void *self, cs_bytes path)
{
    const struct inclusion *claim = self;
    return cs_merkle_verify_inclusion(&claim->leaf, claim->index, claim->size, path, &claim->root);
}

static void every_inclusion_proof_up_to_64_holds_and_no_forged_one_does(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_merkle) tree = tree_of(SIZE_MAX_TESTED);
    for (uint64_t size = 1; size <= SIZE_MAX_TESTED; size++) {
        for (uint64_t index = 0; index < size; index++) {
            struct inclusion claim = {index, size, leaf_of(index), cs_merkle_root(tree, size)};
            CS_AUTO(cs_buffer) path = CS_BUFFER_EMPTY;
            assert_ok(cs_merkle_inclusion(tree, index, size, &path));
            assert_mutations_refused(&path, verify_inclusion, &claim);

            for (uint64_t other = 0; other <= size; other++) {
                claim.index = other;
                assert_true(verify_inclusion(&claim, cs_buffer_view(&path)) == (other == index));
            }
            claim.index = index;
            claim.leaf = leaf_of(index + 1);
            assert_false(verify_inclusion(&claim, cs_buffer_view(&path)));
            claim.leaf = leaf_of(index);
            claim.root.bytes[31] ^= 0x80;
            assert_false(verify_inclusion(&claim, cs_buffer_view(&path)));
        }
    }
}

struct consistency {
    uint64_t old_size, size;
    cs_hash old_root, root;
};

static bool verify_consistency(void *self, cs_bytes path)
{
    const struct consistency *claim = self;
    return cs_merkle_verify_consistency(claim->old_size, &claim->old_root, claim->size, &claim->root, path);
}

static void every_consistency_proof_up_to_64_holds_and_no_forged_one_does(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_merkle) tree = tree_of(SIZE_MAX_TESTED);
    for (uint64_t size = 0; size <= SIZE_MAX_TESTED; size++) {
        for (uint64_t old_size = 0; old_size <= size; old_size++) {
            struct consistency claim = {old_size, size, cs_merkle_root(tree, old_size), cs_merkle_root(tree, size)};
            CS_AUTO(cs_buffer) path = CS_BUFFER_EMPTY;
            assert_ok(cs_merkle_consistency(tree, old_size, size, &path));
            assert_mutations_refused(&path, verify_consistency, &claim);

            claim.old_root.bytes[0] ^= 1;
            assert_false(verify_consistency(&claim, cs_buffer_view(&path)));
            claim.old_root.bytes[0] ^= 1;
            if (old_size > 0) {
                claim.root.bytes[0] ^= 1;
                assert_false(verify_consistency(&claim, cs_buffer_view(&path)));
                claim.root.bytes[0] ^= 1;
            }
            for (uint64_t other = 1; other <= size; other++) {
                claim.old_size = other;
                if (other != old_size)
                    assert_false(verify_consistency(&claim, cs_buffer_view(&path)));
            }
        }
    }
}

static void a_tree_whose_history_was_rewritten_has_no_consistency_proof(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_merkle) honest = tree_of(20);
    CS_AUTO_PTR(cs_merkle) rewritten = cs_merkle_new();
    for (uint64_t i = 0; i < 40; i++) {
        uint8_t bytes[8];
        cs_store_le64(bytes, i == 7 ? 1000 : i);
        cs_merkle_add(rewritten, cs_bytes_of(bytes, sizeof bytes));
    }
    CS_AUTO(cs_buffer) path = CS_BUFFER_EMPTY;
    assert_ok(cs_merkle_consistency(rewritten, 20, 40, &path));
    struct consistency claim = {20, 40, cs_merkle_root(honest, 20), cs_merkle_root(rewritten, 40)};

    assert_false(verify_consistency(&claim, cs_buffer_view(&path)));
}

static void proofs_beyond_the_tree_are_refused(void **state)
{
    (void)state;
    CS_AUTO_PTR(cs_merkle) tree = tree_of(5);
    CS_AUTO(cs_buffer) path = CS_BUFFER_EMPTY;

    assert_status(cs_merkle_inclusion(tree, 0, 0, &path), CS_RANGE);
    assert_status(cs_merkle_inclusion(tree, 5, 5, &path), CS_RANGE);
    assert_status(cs_merkle_inclusion(tree, 0, 6, &path), CS_RANGE);
    assert_status(cs_merkle_inclusion(tree, UINT64_MAX, UINT64_MAX, &path), CS_RANGE);
    assert_status(cs_merkle_consistency(tree, 4, 6, &path), CS_RANGE);
    assert_status(cs_merkle_consistency(tree, 5, 4, &path), CS_RANGE);
    assert_int_equal(path.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_roots_are_those_of_the_reference),
        cmocka_unit_test(the_proofs_are_those_of_the_reference),
        cmocka_unit_test(every_root_up_to_64_leaves_is_the_one_of_the_definition),
        cmocka_unit_test(every_inclusion_proof_up_to_64_holds_and_no_forged_one_does),
        cmocka_unit_test(every_consistency_proof_up_to_64_holds_and_no_forged_one_does),
        cmocka_unit_test(a_tree_whose_history_was_rewritten_has_no_consistency_proof),
        cmocka_unit_test(proofs_beyond_the_tree_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
