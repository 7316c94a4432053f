/* Elements of tensors as doubles, for the passes of fedavg.c and check.c, on any thread.
 * The file is compiled without contraction of products and sums, so that every machine rounds alike. */
#include "server/aggregate/elements.h"

#include <assert.h>
#include <math.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors are little endian and are read as they lie");

/* The two formats of 16 bits: 1 sign, some bits of exponent, the rest mantissa. */
typedef struct small_format {
    int mantissa_bits;
    int bias;
    uint16_t infinity; /* bits of +infinity; larger are not numbers */
} small_format;

static const small_format f16_format = {10, 15, 0x7c00};
static const small_format bf16_format = {7, 127, 0x7f80};

static double f16_to_double(uint16_t bits)
{
    const int exponent = bits >> 10 & 31;
    const int mantissa = bits & 1023;
    double value = 0;
    if (exponent == 31)
        value = mantissa != 0 ? (double)NAN : (double)INFINITY;
    else if (exponent == 0)
        value = mantissa * 0x1p-24;
    else
        value = (1024 + mantissa) * 0x1p-25 * (double)(1u << exponent);
    return bits & 0x8000 ? -value : value;
}

static double bf16_to_double(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value = 0;
    memcpy(&value, &wide, sizeof(value));
    return (double)value;
}

/* Rounds once: going through float would round twice and differ in ties. */
static uint16_t round_to_16(double value, const small_format *format)
{
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    const uint16_t sign = (uint16_t)(bits >> 48 & 0x8000);
    const int exponent = (int)(bits >> 52 & 0x7ff) - 1023;
    const uint64_t mantissa = (bits & ((1ull << 52) - 1)) | 1ull << 52;
    const int smallest_normal = 1 - format->bias;
    const bool is_normal = exponent >= smallest_normal;
    const int shift = 52 - format->mantissa_bits + (is_normal ? 0 : smallest_normal - exponent);
    if (exponent > format->bias)
        return sign | format->infinity;
    if (shift > 53)
        return sign; /* less than half of the smallest number */

    uint64_t quotient = mantissa >> shift;
    const uint64_t rest = mantissa & ((1ull << shift) - 1);
    const uint64_t half = 1ull << (shift - 1);
    if (rest > half || (rest == half && (quotient & 1) != 0))
        quotient++; /* may carry into the exponent, which is then right too */
    /* The leading one of a normal mantissa adds the last step of the exponent. */
    const uint64_t steps = is_normal ? (uint64_t)(exponent - smallest_normal) : 0;
    return (uint16_t)(sign | ((steps << format->mantissa_bits) + quotient));
}

#define ADD(type, to_double)                                                                                           \
    do {                                                                                                               \
        const type *elements = data;                                                                                   \
        for (size_t i = 0; i < count; i++)                                                                             \
            sums[i] += weight * to_double(elements[i]);                                                                \
    } while (0)

void cs_elements_add(cs_dtype dtype, const void *data, size_t count, double weight, double *restrict sums)
{
    switch (dtype) {
    case CS_F64:
        ADD(double, );
        return;
    case CS_F32:
        ADD(float, (double));
        return;
    case CS_F16:
        ADD(uint16_t, f16_to_double);
        return;
    case CS_BF16:
        ADD(uint16_t, bf16_to_double);
        return;
    case CS_I64:
        ADD(int64_t, (double));
        return;
    case CS_I32:
        ADD(int32_t, (double));
        return;
    case CS_I16:
        ADD(int16_t, (double));
        return;
    case CS_I8:
        ADD(int8_t, (double));
        return;
    case CS_U8:
    case CS_BOOL:
        ADD(uint8_t, (double));
        return;
    }
    assert(false);
}

/* All are tried, so that the loop has no branch; what does not fit makes the flag false. */
#define ADD_ROUNDED_REAL(type)                                                                                         \
    do {                                                                                                               \
        type *elements = data;                                                                                         \
        for (size_t i = 0; i < count; i++) {                                                                           \
            elements[i] = (type)((double)elements[i] + sums[i]);                                                       \
            fits &= __builtin_isfinite(elements[i]) != 0;                                                              \
        }                                                                                                              \
    } while (0)

#define ADD_ROUNDED_SMALL(to_double, format)                                                                           \
    do {                                                                                                               \
        uint16_t *elements = data;                                                                                     \
        for (size_t i = 0; i < count; i++) {                                                                           \
            elements[i] = round_to_16(to_double(elements[i]) + sums[i], &(format));                                    \
            fits &= (elements[i] & 0x7fff) < (format).infinity;                                                        \
        }                                                                                                              \
    } while (0)

/* `high_excluded` is the first number above the range: unlike the last one inside, it is always a double. */
#define ADD_ROUNDED_INTEGER(type, low, high_excluded)                                                                  \
    do {                                                                                                               \
        type *elements = data;                                                                                         \
        for (size_t i = 0; i < count; i++) {                                                                           \
            const double value = rint((double)elements[i] + sums[i]);                                                  \
            if (!(value >= (low) && value < (high_excluded)))                                                          \
                return false;                                                                                          \
            elements[i] = (type)value;                                                                                 \
        }                                                                                                              \
    } while (0)

bool cs_elements_add_rounded(cs_dtype dtype, void *data, size_t count, const double *restrict sums)
{
    bool fits = true;
    switch (dtype) {
    case CS_F64:
        ADD_ROUNDED_REAL(double);
        return fits;
    case CS_F32:
        ADD_ROUNDED_REAL(float);
        return fits;
    case CS_F16:
        ADD_ROUNDED_SMALL(f16_to_double, f16_format);
        return fits;
    case CS_BF16:
        ADD_ROUNDED_SMALL(bf16_to_double, bf16_format);
        return fits;
    case CS_I64:
        ADD_ROUNDED_INTEGER(int64_t, -0x1p63, 0x1p63);
        return true;
    case CS_I32:
        ADD_ROUNDED_INTEGER(int32_t, -0x1p31, 0x1p31);
        return true;
    case CS_I16:
        ADD_ROUNDED_INTEGER(int16_t, -0x1p15, 0x1p15);
        return true;
    case CS_I8:
        ADD_ROUNDED_INTEGER(int8_t, -128, 128);
        return true;
    case CS_U8:
        ADD_ROUNDED_INTEGER(uint8_t, 0, 256);
        return true;
    case CS_BOOL:
        ADD_ROUNDED_INTEGER(uint8_t, 0, 2);
        return true;
    }
    assert(false);
    return false;
}

/* First a pass that the compiler can widen, then, only if there is one, the search for where it is. */
#define FIRST(type, is_unusable)                                                                                       \
    do {                                                                                                               \
        const type *elements = data;                                                                                   \
        bool is_any = false;                                                                                           \
        for (size_t i = 0; i < count; i++)                                                                             \
            is_any |= is_unusable(elements[i]);                                                                        \
        for (size_t i = 0; is_any && i < count; i++)                                                                   \
            if (is_unusable(elements[i]))                                                                              \
                return i;                                                                                              \
        return count;                                                                                                  \
    } while (0)

#define F64_UNUSABLE(bits)  (((bits)&0x7ff0000000000000) == 0x7ff0000000000000)
#define F32_UNUSABLE(bits)  (((bits)&0x7f800000u) == 0x7f800000u)
#define F16_UNUSABLE(bits)  (((bits)&0x7c00) == 0x7c00)
#define BF16_UNUSABLE(bits) (((bits)&0x7f80) == 0x7f80)
#define BOOL_UNUSABLE(bits) ((bits) > 1)

size_t cs_elements_first_unusable(cs_dtype dtype, const void *data, size_t count)
{
    switch (dtype) {
    case CS_F64:
        FIRST(uint64_t, F64_UNUSABLE);
    case CS_F32:
        FIRST(uint32_t, F32_UNUSABLE);
    case CS_F16:
        FIRST(uint16_t, F16_UNUSABLE);
    case CS_BF16:
        FIRST(uint16_t, BF16_UNUSABLE);
    case CS_BOOL:
        FIRST(uint8_t, BOOL_UNUSABLE);
    case CS_I64:
    case CS_I32:
    case CS_I16:
    case CS_I8:
    case CS_U8:
        return count;
    }
    assert(false);
    return 0;
}
