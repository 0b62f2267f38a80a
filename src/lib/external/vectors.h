/* Vectors of WIDTH numbers, for loops that compilers do not vectorise well themselves; one number where there are none. */
#ifndef VECTORS_H
#define VECTORS_H

#include <stdint.h>
#include <string.h>

#include "per_cpu.h"

#if defined(__GNUC__)
#define WIDTH 8 /* floats of a vector */
typedef float Floats __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef uint16_t Words __attribute__((vector_size(2 * WIDTH), aligned(2), may_alias));
#define TO_FLOATS(ints) __builtin_convertvector(ints, Floats)
#define TO_WORDS(ints) __builtin_convertvector(ints, Words)
#define TO_INTS(floats) __builtin_convertvector(floats, Ints) /* towards zero */
#define AS_FLOATS(bits) ((Floats) (bits))
#define CHOOSE(where, one, other) (((where) & (one)) | (~(where) & (other)))
#define CHOOSE_FLOATS(where, one, other) ((Floats) CHOOSE(where, (Ints) (one), (Ints) (other)))
#define TRUTH(comparison) (comparison) /* all bits of where it holds */
#else
#define WIDTH 1
typedef float Floats;
typedef int32_t Ints;
typedef uint16_t Words;
#define TO_FLOATS(ints) ((float) (ints))
#define TO_WORDS(ints) ((uint16_t) (ints))
#define TO_INTS(floats) ((int32_t) (floats))
static float AS_FLOATS(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
#define CHOOSE(where, one, other) ((where) ? (one) : (other))
#define CHOOSE_FLOATS CHOOSE
#define TRUTH(comparison) (-(int32_t) (comparison))
#endif

/* The nearest byte of a float; of NaN, 0. */
static ALWAYS_INLINE uint8_t nearest_byte(float value) {
    const float positive = value > 0 ? value : 0, within = positive < 255 ? positive : 255;
    return (uint8_t) (int32_t) (within + 0.5f);
}

/* The same of 16 floats, and floats of 16 bytes, which compilers do not vectorise well. */
#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#define HAS_AVX512 1
#define AVX512 __attribute__((target("avx512f")))
AVX512 static ALWAYS_INLINE void put_nearest_bytes(uint8_t *out, __m512 values) {
    const __m512 within = _mm512_min_ps(_mm512_max_ps(values, _mm512_setzero_ps()), _mm512_set1_ps(255));
    const __m512i whole = _mm512_cvttps_epi32(_mm512_add_ps(within, _mm512_set1_ps(0.5f)));
    _mm_storeu_si128((__m128i *) out, _mm512_cvtepi32_epi8(whole));
}
AVX512 static ALWAYS_INLINE __m512 floats_of(const uint8_t *bytes) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *) bytes)));
}
#endif
static int has_avx512(void) {
#ifdef HAS_AVX512
    return __builtin_cpu_supports("avx512f") != 0;
#else
    return 0;
#endif
}

#endif
