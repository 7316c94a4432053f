/* Curve25519 by its u-coordinate, for many points at once: the one group operation under private set intersection.
 * Points are 32 bytes, little-endian (RFC 7748). Two back ends give the same bytes: portable C, and eight points at a
 * time with AVX-512 IFMA. No branch and no index depends on a scalar. Any thread; nothing here keeps state. */
#ifndef CS_ALIGN_CURVE_H
#define CS_ALIGN_CURVE_H

#include "common/base/bytes.h"

#define CS_POINT_BYTES     32
#define CS_SCALAR_BYTES    32
#define CS_CURVE_DST_BYTES 255 /* longest domain separation tag, RFC 9380 section 5.3.3 */

typedef enum cs_curve_engine {
    CS_CURVE_BEST, /* what this processor does fastest */
    CS_CURVE_PORTABLE,
    CS_CURVE_IFMA, /* falls back to portable where the processor has no AVX-512 IFMA */
} cs_curve_engine;

/* What CS_CURVE_BEST is here, and whether that engine would really run. */
cs_curve_engine cs_curve_best(void);
const char *cs_curve_engine_name(cs_curve_engine engine);

/* X25519 as RFC 7748 section 5 says it, for `count` points under one scalar: bits are clamped, bit 255 of a point is
 * ignored, values of p and above are taken modulo p, points of the twist are multiplied like any other. `out` may be
 * `in`. */
void cs_curve_x25519(cs_curve_engine engine, const uint8_t scalar[CS_SCALAR_BYTES], const uint8_t *in, size_t count,
                     uint8_t *out);

/* The same for points that a peer sent. Refuses what no honest site sends: u of p or more, a point of the twist (one
 * bit about the scalar's holder would go out with every such point), a result of zero (a point of small order).
 * CS_INVALID names the point as `first` + its place in `in`; nothing in `out` may be used then. `out` may be `in`.
 * The clamped scalar is a multiple of 8, so the result lies in the large subgroup whatever came in. */
CS_MUST_CHECK cs_status cs_curve_mask(cs_curve_engine engine, const uint8_t scalar[CS_SCALAR_BYTES], const uint8_t *in,
                                      size_t count, uint64_t first, uint8_t *out);

/* Messages of `size` bytes each onto the curve: curve25519_XMD:SHA-512_ELL2_NU_ of RFC 9380, u-coordinate only, up to
 * and without clear_cofactor, which cs_curve_mask does. `dst`: 1 to CS_CURVE_DST_BYTES bytes. */
void cs_curve_hash(cs_curve_engine engine, cs_bytes dst, const uint8_t *messages, size_t size, size_t count,
                   uint8_t *out);

#endif
