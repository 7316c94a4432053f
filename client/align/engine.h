/* What a back end of the curve is. Included by curve.c and the back ends. */
#ifndef CS_ALIGN_ENGINE_H
#define CS_ALIGN_ENGINE_H

#include "client/align/curve.h"

/* One back end. Counts are any number; in and out may be the same memory. */
typedef struct cs_curve_field {
    /* `scalar` is clamped; points are taken modulo p without bit 255. */
    void (*ladder)(const uint8_t scalar[CS_SCALAR_BYTES], const uint8_t *in, size_t count, uint8_t *out);
    /* Elligator 2: elements below 2^255 to u-coordinates of points of the curve. */
    void (*map)(const uint8_t *in, size_t count, uint8_t *out);
    /* on_curve[i] = 1 where u^3 + 486662 u^2 + u is a square (zero included), else 0. */
    void (*check)(const uint8_t *in, size_t count, uint8_t *on_curve);
} cs_curve_field;

extern const cs_curve_field cs_curve_field_portable;
/* NULL where this build or this processor cannot. */
const cs_curve_field *cs_curve_field_ifma(void);

#endif
