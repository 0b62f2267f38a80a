/* The product of matrices in whole numbers: sums += columns * weight, of columns in uint8 and weights in int8.

   Processors with VNNI multiply four pairs and add them up in one step, so that weights lie in fours: panels of LANES
   outputs, and in them LANES times four successive weights of one output. All processors give the same sums. */
#ifndef PRODUCT_INT8_H
#define PRODUCT_INT8_H

#include <stdint.h>

#include "per_cpu.h"
#include "product.h"

#define FOURS 4              /* weights that are multiplied together */
#define MOST_INT8_COLUMN 768 /* that are multiplied at a time: two panels of weights then stay in the first cache */

/* columns: [rows, size], of which `count` rows and the first FOURS * steps of each count; rows up to the next multiple
   of MOST_ROWS are there, whatever they hold.
   weight: [panels, steps, LANES, FOURS], panels `panel_size` bytes apart.
   sums: [rows, panels * LANES]; added to, or with `fresh` written. */
typedef void (*MultiplyInt8)(const uint8_t *columns, Py_ssize_t size, Py_ssize_t count, Py_ssize_t steps,
                             const int8_t *weight, Py_ssize_t panels, Py_ssize_t panel_size, int32_t *sums, int fresh);

PER_CPU static void multiply_int8_plain(const uint8_t *columns, Py_ssize_t size, Py_ssize_t count, Py_ssize_t steps,
                                        const int8_t *weight, Py_ssize_t panels, Py_ssize_t panel_size, int32_t *sums,
                                        int fresh) {
    for (Py_ssize_t r = 0; r < count; r++)
        for (Py_ssize_t p = 0; p < panels; p++) {
            const uint8_t *column = columns + r * size;
            const int8_t *w = weight + p * panel_size;
            int32_t *sum = sums + (r * panels + p) * LANES, tile[LANES];
            for (int l = 0; l < LANES; l++) tile[l] = fresh ? 0 : sum[l];
            for (Py_ssize_t i = 0; i < steps; i++, column += FOURS, w += LANES * FOURS)
                for (int l = 0; l < LANES; l++)
                    tile[l] += column[0] * w[FOURS * l] + column[1] * w[FOURS * l + 1] + column[2] * w[FOURS * l + 2] +
                               column[3] * w[FOURS * l + 3];
            for (int l = 0; l < LANES; l++) sum[l] = tile[l];
        }
}

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#define HAS_VNNI 1
/* A `MultiplyInt8` of tiles of ROWS by WIDE vectors; PREFIX begins the names of the vector's operations. */
#define DEFINE_MULTIPLY_INT8(NAME, TARGET, VECTOR, PREFIX, LOAD, STORE, SPREAD, BYTES, ROWS, WIDE)                     \
    TARGET static inline __attribute__((always_inline)) void NAME##_tile(                                              \
        const int wide, const uint8_t *columns, Py_ssize_t size, Py_ssize_t steps, const int8_t *weight,               \
        Py_ssize_t panel_size, int32_t *sums, Py_ssize_t step, int fresh) {                                            \
        enum { WIDTH_OF = BYTES / sizeof(int32_t) };                                                                   \
        VECTOR sum[ROWS][WIDE];                                                                                        \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)                                                        \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++)                                                     \
                sum[r][v] = fresh ? SPREAD(0) : LOAD((const void *) (sums + r * step + v * WIDTH_OF));                 \
        for (Py_ssize_t i = 0; i < steps; i++) {                                                                       \
            VECTOR w[WIDE];                                                                                            \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++)                                                     \
                w[v] = LOAD((const void *) (weight + v * WIDTH_OF / LANES * panel_size +                               \
                                            FOURS * (i * LANES + v * WIDTH_OF % LANES)));                              \
            _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++) {                                                  \
                int32_t four;                                                                                          \
                memcpy(&four, columns + r * size + FOURS * i, sizeof four);                                            \
                _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++)                                                 \
                    sum[r][v] = PREFIX##_epi32(sum[r][v], SPREAD(four), w[v]);                                         \
            }                                                                                                          \
        }                                                                                                              \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)                                                        \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++)                                                     \
                STORE((void *) (sums + r * step + v * WIDTH_OF), sum[r][v]);                                           \
    }                                                                                                                  \
    TARGET static void NAME(const uint8_t *columns, Py_ssize_t size, Py_ssize_t count, Py_ssize_t steps,               \
                            const int8_t *weight, Py_ssize_t panels, Py_ssize_t panel_size, int32_t *sums,             \
                            int fresh) {                                                                               \
        const Py_ssize_t step = panels * LANES, most = WIDE * (BYTES / sizeof(int32_t)) / LANES;                       \
        Py_ssize_t p = 0;                                                                                              \
        for (; p + most <= panels; p += most)                                                                          \
            for (Py_ssize_t r = 0; r < count; r += ROWS)                                                               \
                NAME##_tile(WIDE, columns + r * size, size, steps, weight + p * panel_size, panel_size,                \
                            sums + r * step + p * LANES, step, fresh);                                                 \
        for (; p < panels; p++)                                                                                        \
            for (Py_ssize_t r = 0; r < count; r += ROWS)                                                               \
                NAME##_tile(LANES / (BYTES / sizeof(int32_t)), columns + r * size, size, steps,                        \
                            weight + p * panel_size, panel_size, sums + r * step + p * LANES, step, fresh);            \
    }
DEFINE_MULTIPLY_INT8(multiply_int8_avx512, __attribute__((target("avx512f,avx512vnni"))), __m512i, _mm512_dpbusd,
                     _mm512_loadu_si512, _mm512_storeu_si512, _mm512_set1_epi32, 64, 12, 2)
#endif

/* Whether the processor has instructions for this product, without which it is slower than that of floats. */
static int has_int8(void) {
#ifdef HAS_VNNI
    return __builtin_cpu_supports("avx512vnni") != 0;
#else
    return 0;
#endif
}

/* The fastest that this processor has the instructions for. */
static MultiplyInt8 best_multiply_int8(void) {
#ifdef HAS_VNNI
    if (has_int8()) return multiply_int8_avx512;
#endif
    return multiply_int8_plain;
}

#endif
