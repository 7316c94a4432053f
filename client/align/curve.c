/* Chooses a back end, hashes to field elements, and refuses what no honest peer sends. Any thread. */
#include "client/align/curve.h"

#include "client/align/engine.h"
#include "common/crypto/digest.h"
#include "common/crypto/sign.h"

#include <assert.h>
#include <string.h>

/* Points handled between two looks at a peer's points: small enough for the first cache. */
#define BLOCK_POINTS ((size_t)256)
#define EXPAND_BYTES 48 /* L of the suite: ceil((255 + 128) / 8) */

static const cs_curve_field *field_of(cs_curve_engine engine)
{
    const cs_curve_field *ifma = engine == CS_CURVE_PORTABLE ? NULL : cs_curve_field_ifma();
    return ifma != NULL ? ifma : &cs_curve_field_portable;
}

cs_curve_engine cs_curve_best(void)
{
    return cs_curve_field_ifma() != NULL ? CS_CURVE_IFMA : CS_CURVE_PORTABLE;
}

const char *cs_curve_engine_name(cs_curve_engine engine)
{
    return field_of(engine) == &cs_curve_field_portable ? "portable" : "avx512ifma";
}

static void clamp(uint8_t out[CS_SCALAR_BYTES], const uint8_t scalar[CS_SCALAR_BYTES])
{
    memcpy(out, scalar, CS_SCALAR_BYTES);
    out[0] &= 248;
    out[31] = (out[31] & 127) | 64;
}

void cs_curve_x25519(cs_curve_engine engine, const uint8_t scalar[CS_SCALAR_BYTES], const uint8_t *in, size_t count,
                     uint8_t *out)
{
    uint8_t clamped[CS_SCALAR_BYTES];
    clamp(clamped, scalar);
    field_of(engine)->ladder(clamped, in, count, out);
    cs_crypto_wipe(clamped, sizeof clamped);
}

static bool is_below_p(const uint8_t point[CS_POINT_BYTES])
{
    if (point[31] != 0x7f)
        return point[31] < 0x7f;
    for (int i = 30; i > 0; i--)
        if (point[i] != 0xff)
            return true;
    return point[0] < 0xed;
}

static bool is_zero(const uint8_t point[CS_POINT_BYTES])
{
    static const uint8_t zero[CS_POINT_BYTES];
    return memcmp(point, zero, CS_POINT_BYTES) == 0;
}

cs_status cs_curve_mask(cs_curve_engine engine, const uint8_t scalar[CS_SCALAR_BYTES], const uint8_t *in, size_t count,
                        uint64_t first, uint8_t *out)
{
    const cs_curve_field *field = field_of(engine);
    uint8_t clamped[CS_SCALAR_BYTES], on_curve[BLOCK_POINTS];
    clamp(clamped, scalar);
    cs_status status = CS_OK;
    for (size_t start = 0; start < count && status == CS_OK; start += BLOCK_POINTS) {
        const size_t now = CS_MIN(count - start, BLOCK_POINTS);
        const uint8_t *points = in + start * CS_POINT_BYTES;
        uint8_t *results = out + start * CS_POINT_BYTES;
        field->check(points, now, on_curve);
        for (size_t i = 0; i < now && status == CS_OK; i++) {
            const unsigned long long name = (unsigned long long)(first + start + i);
            if (!is_below_p(points + i * CS_POINT_BYTES))
                status = cs_fail(CS_INVALID, "point %llu: its u-coordinate is not below 2^255 - 19", name);
            else if (!on_curve[i])
                status = cs_fail(CS_INVALID, "point %llu lies on the twist of Curve25519, not on the curve", name);
        }
        if (status != CS_OK)
            break;
        field->ladder(clamped, points, now, results);
        for (size_t i = 0; i < now && status == CS_OK; i++)
            if (is_zero(results + i * CS_POINT_BYTES))
                status = cs_fail(CS_INVALID, "point %llu is of small order: masked, it is zero",
                                 (unsigned long long)(first + start + i));
    }
    cs_crypto_wipe(clamped, sizeof clamped);
    return status;
}

/* expand_message_xmd of RFC 9380 section 5.3.1 for the one length the suite asks for, with SHA-512: one block b_1. */
static void expand_one(cs_bytes dst, const uint8_t *message, size_t size, uint8_t out[EXPAND_BYTES])
{
    static const uint8_t zeros[128]; /* Z_pad: one input block of SHA-512 */
    const uint8_t length[3] = {0, EXPAND_BYTES, 0}, one = 1, dst_size = (uint8_t)dst.size;
    uint8_t b0[CS_SHA512_BYTES], b1[CS_SHA512_BYTES];
    const cs_bytes first[] = {cs_bytes_of(zeros, sizeof zeros), cs_bytes_of(message, size),
                              cs_bytes_of(length, sizeof length), dst, cs_bytes_of(&dst_size, 1)};
    cs_sha512(first, CS_COUNT(first), b0);
    const cs_bytes second[] = {cs_bytes_of(b0, sizeof b0), cs_bytes_of(&one, 1), dst, cs_bytes_of(&dst_size, 1)};
    cs_sha512(second, CS_COUNT(second), b1);
    memcpy(out, b1, EXPAND_BYTES);
}

/* 48 big-endian bytes modulo p, below 2^255 (not always below p, which the map does not need). */
static void reduce_wide(const uint8_t in[EXPAND_BYTES], uint8_t out[CS_POINT_BYTES])
{
    uint64_t words[6]; /* least significant first */
    for (int i = 0; i < 6; i++)
        words[i] = (uint64_t)cs_load_be32(in + 40 - 8 * i) << 32 | cs_load_be32(in + 44 - 8 * i);
    /* 2^256 = 38 */
    __extension__ unsigned __int128 sum = 0;
    uint64_t low[4];
    for (int i = 0; i < 4; i++) {
        sum += words[i];
        if (i < 2)
            sum += (__extension__(unsigned __int128) words[4 + i]) * 38;
        low[i] = (uint64_t)sum;
        sum >>= 64;
    }
    /* Twice: the first fold of what lies above 2^255 can reach 2^255 again. */
    uint64_t above = (uint64_t)sum << 1;
    for (int times = 0; times < 2; times++) {
        above |= low[3] >> 63;
        low[3] &= ~((uint64_t)1 << 63);
        sum = (__extension__(unsigned __int128) above) * 19;
        for (int i = 0; i < 4; i++) {
            sum += low[i];
            low[i] = (uint64_t)sum;
            sum >>= 64;
        }
        above = 0;
    }
    for (int i = 0; i < 4; i++)
        cs_store_le64(out + 8 * i, low[i]);
}

void cs_curve_hash(cs_curve_engine engine, cs_bytes dst, const uint8_t *messages, size_t size, size_t count,
                   uint8_t *out)
{
    assert(dst.size > 0 && dst.size <= CS_CURVE_DST_BYTES);
    const cs_curve_field *field = field_of(engine);
    uint8_t elements[BLOCK_POINTS * CS_POINT_BYTES];
    for (size_t start = 0; start < count; start += BLOCK_POINTS) {
        const size_t now = CS_MIN(count - start, BLOCK_POINTS);
        for (size_t i = 0; i < now; i++) {
            uint8_t expanded[EXPAND_BYTES];
            expand_one(dst, messages + (start + i) * size, size, expanded);
            reduce_wide(expanded, elements + i * CS_POINT_BYTES);
        }
        field->map(elements, now, out + start * CS_POINT_BYTES);
    }
}
