/* Numbers of every dtype: read, judged and rounded, against a table of all values of 16 bits. */
#include "server/aggregate/elements.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <math.h>
#include <string.h>

struct format {
    cs_dtype dtype;
    int exponent_bits, mantissa_bits;
};

static const struct format formats[] = {{CS_F16, 5, 10}, {CS_BF16, 8, 7}};

/* From the definition of the format, nothing shared with the code under test. */
static double value_of(const struct format *format, unsigned bits)
{
    const int bias = (1 << (format->exponent_bits - 1)) - 1;
    const int exponent = (int)(bits >> format->mantissa_bits) & ((1 << format->exponent_bits) - 1);
    const int mantissa = (int)bits & ((1 << format->mantissa_bits) - 1);
    const double sign = bits & 0x8000 ? -1 : 1;
    if (exponent == (1 << format->exponent_bits) - 1)
        return mantissa != 0 ? (double)NAN : sign * (double)INFINITY;
    if (exponent == 0)
        return sign * ldexp(mantissa, 1 - bias - format->mantissa_bits);
    return sign * ldexp((1 << format->mantissa_bits) + mantissa, exponent - bias - format->mantissa_bits);
}

static void every_number_of_16_bits_is_read_as_it_is_defined(void **state)
{
    (void)state;
    for (size_t f = 0; f < CS_COUNT(formats); f++) {
        for (unsigned bits = 0; bits < 0x10000; bits++) {
            const uint16_t element = (uint16_t)bits;
            const double expected = value_of(&formats[f], bits);
            double sum = 0;
            cs_elements_add(formats[f].dtype, &element, 1, 1, &sum);
            if (isnan(expected))
                assert_true(isnan(sum));
            else
                assert_true(sum == expected);
            const size_t first = cs_elements_first_unusable(formats[f].dtype, &element, 1);
            assert_int_equal(first, isfinite(expected) ? 1 : 0);
        }
    }
}

static uint16_t rounded(const struct format *format, double value, bool *ret_fits)
{
    uint16_t element = 0;
    *ret_fits = cs_elements_add_rounded(format->dtype, &element, 1, &value);
    return element;
}

static void sums_are_rounded_once_to_nearest_and_ties_to_even(void **state)
{
    (void)state;
    for (size_t f = 0; f < CS_COUNT(formats); f++) {
        const struct format *format = &formats[f];
        const unsigned largest = ((1u << format->exponent_bits) - 1) << format->mantissa_bits;
        for (unsigned bits = 0; bits + 1 < largest; bits++) {
            const double low = value_of(format, bits);
            const double high = value_of(format, bits + 1);
            const double middle = low + (high - low) / 2; /* exact in double */
            const unsigned even = bits & 1 ? bits + 1 : bits;
            bool fits = false;
            assert_int_equal(rounded(format, low, &fits), bits);
            assert_true(fits);
            assert_int_equal(rounded(format, middle, &fits), even);
            /* A double next to the tie: rounding to float first would lose it. */
            assert_int_equal(rounded(format, nextafter(middle, -1), &fits), bits);
            assert_int_equal(rounded(format, nextafter(middle, 1e300), &fits), bits + 1);
            assert_int_equal(rounded(format, -nextafter(middle, 1e300), &fits), (bits + 1) | 0x8000);
        }
    }
}

static void a_sum_above_the_largest_number_does_not_fit(void **state)
{
    (void)state;
    bool fits = true;

    assert_int_equal(rounded(&formats[0], 65519.999, &fits), 0x7bff);
    assert_true(fits);
    rounded(&formats[0], 65520, &fits);
    assert_false(fits);
    rounded(&formats[1], 3.4e38, &fits);
    assert_false(fits);
    rounded(&formats[0], (double)NAN, &fits);
    assert_false(fits);
    rounded(&formats[0], -(double)INFINITY, &fits);
    assert_false(fits);

    float wide = 3e38f;
    const double more = 3e38;
    assert_false(cs_elements_add_rounded(CS_F32, &wide, 1, &more));
    double widest = 1.5e308;
    const double as_much = 1.5e308;
    assert_false(cs_elements_add_rounded(CS_F64, &widest, 1, &as_much));
}

static void integers_are_rounded_to_nearest_and_never_wrap(void **state)
{
    (void)state;
    static const struct {
        cs_dtype dtype;
        int64_t start;
        double sum;
        bool fits;
        int64_t result;
    } cases[] = {
        {CS_I8, 100, 27.4, true, 127},     {CS_I8, 100, 27.5, false, 0},
        {CS_I8, -100, -28.5, true, -128},  {CS_U8, 5, -5.4, true, 0},
        {CS_U8, 5, -6, false, 0},          {CS_I16, 32000, 800, false, 0},
        {CS_I16, -1, 2.5, true, 2},        {CS_I32, 2147483647, 0, true, 2147483647},
        {CS_I32, 2147483647, 1, false, 0}, {CS_I64, 7, 1e19, false, 0},
        {CS_I64, 41, 0.75, true, 42},      {CS_I64, 0, (double)NAN, false, 0},
        {CS_BOOL, 1, -1, true, 0},         {CS_BOOL, 1, 1, false, 0},
    };
    for (size_t i = 0; i < CS_COUNT(cases); i++) {
        int64_t element = 0;
        memcpy(&element, &cases[i].start, cs_dtype_size(cases[i].dtype));
        assert_int_equal(cs_elements_add_rounded(cases[i].dtype, &element, 1, &cases[i].sum), cases[i].fits);
        if (cases[i].fits)
            assert_memory_equal(&element, &cases[i].result, cs_dtype_size(cases[i].dtype));
    }
}

static void the_first_unusable_element_is_found_anywhere(void **state)
{
    (void)state;
    float singles[100] = {0};
    double doubles[100] = {0};
    uint8_t flags[100] = {0};
    assert_int_equal(cs_elements_first_unusable(CS_F32, singles, 100), 100);
    assert_int_equal(cs_elements_first_unusable(CS_F64, doubles, 100), 100);
    for (size_t i = 0; i < 100; i++)
        flags[i] = i % 2;
    assert_int_equal(cs_elements_first_unusable(CS_BOOL, flags, 100), 100);

    for (size_t at = 100; at-- > 0;) {
        singles[at] = at % 2 ? NAN : INFINITY;
        doubles[at] = at % 2 ? -(double)INFINITY : (double)NAN;
        flags[at] = 2;
        assert_int_equal(cs_elements_first_unusable(CS_F32, singles, 100), at);
        assert_int_equal(cs_elements_first_unusable(CS_F64, doubles, 100), at);
        assert_int_equal(cs_elements_first_unusable(CS_BOOL, flags, 100), at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_number_of_16_bits_is_read_as_it_is_defined),
        cmocka_unit_test(sums_are_rounded_once_to_nearest_and_ties_to_even),
        cmocka_unit_test(a_sum_above_the_largest_number_does_not_fit),
        cmocka_unit_test(integers_are_rounded_to_nearest_and_never_wrap),
        cmocka_unit_test(the_first_unusable_element_is_found_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
