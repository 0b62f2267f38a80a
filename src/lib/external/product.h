/* The product of matrices that kernels make of what they have just put into the cache: sums += columns * weight.

   Weights lie in panels of LANES outputs, so that each step of the innermost loop reads a stretch of them. A tile of
   sums, some rows by a panel or two, stays in registers all the while. */
#ifndef PRODUCT_H
#define PRODUCT_H

#define LANES 16         /* outputs of a panel of weights */
#define MOST_ROWS 12     /* of a tile; a multiple of those of all processors */
#define MOST_COLUMN 288  /* that a caller had best multiply at a time: a panel of weights then stays in the first cache */

/* columns: [rows, size], of which `count` rows and the first k of each count; rows up to the next multiple of MOST_ROWS
   are there, whatever they hold.
   weight: [panels, k, LANES], panels `panel_size` floats apart.
   sums: [rows, panels * LANES]; added to, or with `fresh` written. */
typedef void (*Multiply)(const float *columns, Py_ssize_t size, Py_ssize_t count, Py_ssize_t k, const float *weight,
                         Py_ssize_t panels, Py_ssize_t panel_size, float *sums, int fresh);

#if defined(__GNUC__)
/* A `Multiply` for processors with vectors of so many bytes: tiles of ROWS by WIDE vectors. */
#define DEFINE_MULTIPLY(NAME, TARGET, BYTES, ROWS, WIDE)                                                               \
    typedef float NAME##_vector __attribute__((vector_size(BYTES), aligned(4), may_alias));                            \
    TARGET static inline __attribute__((always_inline)) void NAME##_tile(                                              \
        const int wide, const float *columns, Py_ssize_t size, Py_ssize_t k, const float *weight,                      \
        Py_ssize_t panel_size, float *sums, Py_ssize_t step, int fresh) {                                              \
        enum { WIDTH_OF = BYTES / sizeof(float) };                                                                     \
        NAME##_vector sum[ROWS][WIDE];                                                                                 \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)                                                        \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++) {                                                   \
                sum[r][v] = (NAME##_vector){0};                                                                        \
                if (!fresh) sum[r][v] = *(const NAME##_vector *) (sums + r * step + v * WIDTH_OF);                     \
            }                                                                                                          \
        for (Py_ssize_t i = 0; i < k; i++) {                                                                           \
            NAME##_vector w[WIDE];                                                                                     \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++)                                                     \
                w[v] = *(const NAME##_vector *) (weight + v * WIDTH_OF / LANES * panel_size + i * LANES +              \
                                                 v * WIDTH_OF % LANES);                                                \
            _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)                                                    \
                _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++) sum[r][v] += columns[r * size + i] * w[v];      \
        }                                                                                                              \
        _Pragma("GCC unroll 16") for (int r = 0; r < ROWS; r++)                                                        \
            _Pragma("GCC unroll 4") for (int v = 0; v < wide; v++)                                                     \
                *(NAME##_vector *) (sums + r * step + v * WIDTH_OF) = sum[r][v];                                       \
    }                                                                                                                  \
    TARGET static void NAME(const float *columns, Py_ssize_t size, Py_ssize_t count, Py_ssize_t k,                     \
                            const float *weight, Py_ssize_t panels, Py_ssize_t panel_size, float *sums, int fresh) {   \
        const Py_ssize_t step = panels * LANES, most = WIDE * (BYTES / sizeof(float)) / LANES;                         \
        Py_ssize_t p = 0;                                                                                              \
        for (; p + most <= panels; p += most)                                                                          \
            for (Py_ssize_t r = 0; r < count; r += ROWS)                                                               \
                NAME##_tile(WIDE, columns + r * size, size, k, weight + p * panel_size, panel_size,                    \
                            sums + r * step + p * LANES, step, fresh);                                                 \
        for (; p < panels; p++)                                                                                        \
            for (Py_ssize_t r = 0; r < count; r += ROWS)                                                               \
                NAME##_tile(LANES / (BYTES / sizeof(float)), columns + r * size, size, k, weight + p * panel_size,     \
                            panel_size, sums + r * step + p * LANES, step, fresh);                                     \
    }
DEFINE_MULTIPLY(multiply_plain, , 16, 3, 4)
#if defined(__x86_64__)
DEFINE_MULTIPLY(multiply_fma, __attribute__((target("fma"))), 32, 6, 2)
DEFINE_MULTIPLY(multiply_avx512, __attribute__((target("avx512f"))), 64, 12, 2)
#endif
#else
static void multiply_plain(const float *columns, Py_ssize_t size, Py_ssize_t count, Py_ssize_t k, const float *weight,
                           Py_ssize_t panels, Py_ssize_t panel_size, float *sums, int fresh) {
    for (Py_ssize_t r = 0; r < count; r++)
        for (Py_ssize_t p = 0; p < panels; p++) {
            const float *w = weight + p * panel_size;
            float *sum = sums + (r * panels + p) * LANES, tile[LANES];
            for (int l = 0; l < LANES; l++) tile[l] = fresh ? 0 : sum[l];
            for (Py_ssize_t i = 0; i < k; i++)
                for (int l = 0; l < LANES; l++) tile[l] += columns[r * size + i] * w[i * LANES + l];
            for (int l = 0; l < LANES; l++) sum[l] = tile[l];
        }
}
#endif

/* The fastest that this processor has the instructions for. */
static Multiply best_multiply(void) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return multiply_avx512;
    if (__builtin_cpu_supports("fma")) return multiply_fma;
#endif
    return multiply_plain;
}

/* out = n sums + bias, with `relu` not below zero */
static void finish_sums(float *out, const float *sums, const float *bias, Py_ssize_t n, int relu) {
    if (relu)
        for (Py_ssize_t i = 0; i < n; i++) out[i] = sums[i] + bias[i] < 0 ? 0 : sums[i] + bias[i]; /* NaN stays */
    else
        for (Py_ssize_t i = 0; i < n; i++) out[i] = sums[i] + bias[i];
}

#endif
