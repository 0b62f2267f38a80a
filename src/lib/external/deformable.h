/* A deformable convolution, a block of positions at a time: samples and product in one go.

   The samples of a block ("columns") stay in the second cache: they are multiplied where they have just been written.
   dcn.pyx has the words. */
#ifndef DEFORMABLE_H
#define DEFORMABLE_H

#include <stdint.h>
#include <string.h>

#include "per_cpu.h"
#include "product.h"
#include "product_int8.h"
#include "vectors.h"

#define BLOCK 48      /* positions of a block: a multiple of MOST_ROWS and WIDTH */
#define WHOLE 256     /* what stands for 1 among weights that are whole numbers */
#define MOST_PART 512 /* channels of a tap that are sampled at a time */

typedef struct {
    /* What the loops need to know beside the map x [B, height, width, channels] itself. */
    const float *offset; /* [B, 2 * groups * k * k, out_height, out_width], of any strides (in floats) */
    const float *mask;   /* [B, groups * k * k, out_height, out_width], the same */
    Py_ssize_t offset_strides[4];
    Py_ssize_t mask_strides[4];
    Py_ssize_t height, width, channels, groups;
    Py_ssize_t kernel, stride, padding, dilation;
    Py_ssize_t out_height, out_width;
    Py_ssize_t taps; /* of a position: k * k * groups, groups innermost */
    Py_ssize_t part; /* channels of a group */
} Layer;

typedef struct {
    /* What the columns are multiplied by, and how the output is made of the sums. */
    const float *weight; /* [panels, taps * part, LANES] */
    const float *bias;   /* [out_channels] */
    Py_ssize_t panels, out_channels;
    int sigmoid; /* whether the mask is given before its sigmoid */
    int relu;    /* whether the output is not to be below zero */
} Product;

typedef struct {
    /* The same in int8. */
    const int8_t *weight; /* [panels, steps, LANES, FOURS], zeros beyond the columns of a position */
    const float *scale;   /* [out_channels], what 1 of a sum stands for */
    const float *bias;    /* [out_channels] */
    Py_ssize_t panels, steps, out_channels;
    int32_t zero; /* the byte of the map that stands for 0, as cells outside do */
    int relu;
} Int8Product;

/* The sigmoid of n values in place, to a few units in the last place: exp is 2^i by the bits of a float, the rest by a
   polynomial. */
PER_CPU static void apply_sigmoid(float *values, Py_ssize_t n) {
    const Floats zero = {0};
    for (Py_ssize_t at = 0; at < n; at += WIDTH) {
        Floats x = -*(Floats *) (values + at);
        x = CHOOSE_FLOATS(TRUTH(x < -87), zero - 87, x);
        x = CHOOSE_FLOATS(TRUTH(x > 87), zero + 87, x);
        const Ints i = TO_INTS(CHOOSE_FLOATS(TRUTH(x == x), x, zero) * 1.44269504f + 127.5f) - 127; /* to the nearest */
        const Floats r = x - TO_FLOATS(i) * 0.693359375f + TO_FLOATS(i) * 2.12194440e-4f;
        Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;
        p = p * r + 8.3334519073e-3f;
        p = p * r + 4.1665795894e-2f;
        p = p * r + 1.6666665459e-1f;
        p = p * r + 5.0000001201e-1f;
        p = p * r * r + r + 1;
        *(Floats *) (values + at) = 1 / (1 + p * AS_FLOATS((i + 127) << 23));
    }
}

/* Share a weight out between two neighbours, by how far the place lies from the first; whole numbers add up to it. */
#define SHARE(first, second, weight, part)                                                                             \
    Floats first = (weight) * (1 - (part)), second = (weight) * (part);                                                \
    if (whole) {                                                                                                       \
        second = TO_FLOATS(TO_INTS(second + 0.5f));                                                                    \
        first = (weight) - second;                                                                                     \
    }

/* The four cells around each of n places y, x and their weights, modulated: cell k of place i is [k * n + i]. With
   `whole`, whole numbers take the place of the weights, WHOLE for 1, of modulations from 0 to 1; a fifth row is what to
   add to the sum over the cells: (WHOLE - the sum of the weights) * zero, and WHOLE / 2 to round to the nearest. */
static ALWAYS_INLINE void place(const float *y, const float *x, const float *mask, int32_t *cell, float *weight,
                                uint16_t *whole, int32_t zero, Py_ssize_t n, int32_t height, int32_t width) {
    const float high = height, wide = width;
    const Floats none = {0};
    const Ints first = {0}, last_row = first + (height - 1), last_column = first + (width - 1);
    for (Py_ssize_t i = 0; i < n; i += WIDTH) {
        const Floats given_y = *(const Floats *) (y + i), given_x = *(const Floats *) (x + i);
        const Floats given = *(const Floats *) (mask + i);
        const Ints inside = TRUTH(given_y >= -1) & TRUTH(given_y <= high) & TRUTH(given_x >= -1) &
                            TRUTH(given_x <= wide); /* not at NaN */
        const Floats at_y = CHOOSE_FLOATS(inside, given_y, none), at_x = CHOOSE_FLOATS(inside, given_x, none);
        Floats scale = CHOOSE_FLOATS(inside, given, none);
        if (whole) scale = TO_FLOATS(TO_INTS(CHOOSE_FLOATS(TRUTH(scale >= 0), scale, none) * WHOLE + 0.5f)); /* NaN: 0 */
        const Ints top = TO_INTS(at_y + 1) - 1, left = TO_INTS(at_x + 1) - 1; /* the floor, of numbers from -1 on */
        const Ints has_top = TRUTH(top >= first) & TRUTH(top <= last_row), has_bottom = TRUTH(top < last_row);
        const Ints has_left = TRUTH(left >= first) & TRUTH(left <= last_column), has_right = TRUTH(left < last_column);
        SHARE(above, below, scale, at_y - TO_FLOATS(top))
        SHARE(above_before, above_after, above, at_x - TO_FLOATS(left))
        SHARE(below_before, below_after, below, at_x - TO_FLOATS(left))
        /* A cell outside counts nothing; one that is there is read in its place. */
        const Floats weights[4] = {
            CHOOSE_FLOATS(has_top & has_left, above_before, none),
            CHOOSE_FLOATS(has_top & has_right, above_after, none),
            CHOOSE_FLOATS(has_bottom & has_left, below_before, none),
            CHOOSE_FLOATS(has_bottom & has_right, below_after, none),
        };
        const Ints y0 = CHOOSE(has_top, top, first) * width, y1 = CHOOSE(has_bottom, top + 1, first) * width;
        const Ints x0 = CHOOSE(has_left, left, first), x1 = CHOOSE(has_right, left + 1, first);
        *(Ints *) (cell + i) = y0 + x0;
        *(Ints *) (cell + n + i) = y0 + x1;
        *(Ints *) (cell + 2 * n + i) = y1 + x0;
        *(Ints *) (cell + 3 * n + i) = y1 + x1;
        Ints rest = first + WHOLE;
        for (int k = 0; k < 4; k++)
            if (whole) {
                rest -= TO_INTS(weights[k]);
                *(Words *) (whole + k * n + i) = TO_WORDS(TO_INTS(weights[k]));
            } else
                *(Floats *) (weight + k * n + i) = weights[k];
        if (whole) *(Words *) (whole + 4 * n + i) = TO_WORDS(rest * zero + WHOLE / 2);
    }
}
PER_CPU static void place_all(const float *y, const float *x, const float *mask, int32_t *cell, float *weight,
                              Py_ssize_t n, int32_t height, int32_t width) {
    place(y, x, mask, cell, weight, NULL, 0, n, height, width);
}
PER_CPU static void place_whole(const float *y, const float *x, const float *mask, int32_t *cell, uint16_t *whole,
                                int32_t zero, Py_ssize_t n, int32_t height, int32_t width) {
    place(y, x, mask, cell, NULL, whole, zero, n, height, width);
}

/* Fill columns [count, taps * part] with what `taps` taps from `first` on see of `part` channels from `channel` on. */
typedef void (*SampleBlock)(const Layer *layer, const float *x, const Py_ssize_t *image, const int32_t *cell,
                            const float *weight, float *columns, Py_ssize_t count, Py_ssize_t first, Py_ssize_t taps,
                            Py_ssize_t channel, Py_ssize_t part);
#define BLEND(a, b, c, d) (wa * (a) + wb * (b) + wc * (c) + wd * (d))

/* The channels of a tap that fill no vector. */
static void blend_rest(float *__restrict out, const float *a, const float *b, const float *c, const float *d, float wa,
                       float wb, float wc, float wd, Py_ssize_t n) {
    for (Py_ssize_t i = 0; i < n; i++) out[i] = BLEND(a[i], b[i], c[i], d[i]);
}

/* A `SampleBlock` for processors with vectors VECTOR of LENGTH floats. */
#define DEFINE_SAMPLE_BLOCK(NAME, TARGET, VECTOR, LENGTH)                                                              \
    TARGET static void NAME(const Layer *layer, const float *x, const Py_ssize_t *image, const int32_t *cell,          \
                            const float *weight, float *columns, Py_ssize_t count, Py_ssize_t first, Py_ssize_t taps,  \
                            Py_ssize_t channel, Py_ssize_t part) {                                                     \
        const Py_ssize_t n = BLOCK * layer->taps, channels = layer->channels, groups = layer->groups;                  \
        for (Py_ssize_t p = 0; p < count; p++) {                                                                       \
            Py_ssize_t group = first % groups, at = first * BLOCK + p;                                                 \
            for (Py_ssize_t t = 0; t < taps; t++, at += BLOCK, columns += part) {                                      \
                const float *cells = x + image[p] + group * layer->part + channel;                                     \
                const float *a = cells + cell[at] * channels, *b = cells + cell[n + at] * channels;                    \
                const float *c = cells + cell[2 * n + at] * channels, *d = cells + cell[3 * n + at] * channels;        \
                const float wa = weight[at], wb = weight[n + at], wc = weight[2 * n + at], wd = weight[3 * n + at];    \
                Py_ssize_t i = 0;                                                                                      \
                for (; i + LENGTH <= part; i += LENGTH)                                                                \
                    *(VECTOR *) (columns + i) = BLEND(*(const VECTOR *) (a + i), *(const VECTOR *) (b + i),            \
                                                      *(const VECTOR *) (c + i), *(const VECTOR *) (d + i));           \
                if (i < part) blend_rest(columns + i, a + i, b + i, c + i, d + i, wa, wb, wc, wd, part - i);           \
                group = group + 1 == groups ? 0 : group + 1;                                                           \
            }                                                                                                          \
        }                                                                                                              \
    }
#if defined(__GNUC__)
DEFINE_SAMPLE_BLOCK(sample_block_plain, , multiply_plain_vector, 4)
#if defined(__x86_64__)
DEFINE_SAMPLE_BLOCK(sample_block_fma, __attribute__((target("fma"))), multiply_fma_vector, 8)
DEFINE_SAMPLE_BLOCK(sample_block_avx512, __attribute__((target("avx512f"))), multiply_avx512_vector, 16)
#endif
#else
DEFINE_SAMPLE_BLOCK(sample_block_plain, , float, 1)
#endif

/* The fastest that this processor has the instructions for and a tap has enough channels for. */
static SampleBlock best_sample_block(const Layer *layer) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (layer->part >= 16 && __builtin_cpu_supports("avx512f")) return sample_block_avx512;
    if (layer->part >= 8 && __builtin_cpu_supports("fma")) return sample_block_fma;
#endif
    (void) layer;
    return sample_block_plain;
}

/* Channels of a tap, and taps, that are sampled at a time. */
static Py_ssize_t part_at_a_time(const Layer *layer) {
    return layer->part < MOST_PART ? layer->part : MOST_PART;
}
static Py_ssize_t taps_at_a_time(const Layer *layer) {
    const Py_ssize_t taps = MOST_COLUMN / part_at_a_time(layer);
    return taps < 1 ? 1 : taps < layer->taps ? taps : layer->taps;
}

/* Floats that one thread needs room for: 11 for each tap of a block, the columns, the sums. */
static Py_ssize_t block_room(const Layer *layer, const Product *product) {
    const Py_ssize_t columns = part_at_a_time(layer) * taps_at_a_time(layer);
    return BLOCK * (11 * layer->taps + columns + product->panels * LANES);
}

/* Set where all taps of positions look, y, x and mask [taps, BLOCK], and where the image of each position begins. */
static void look_at_block(const Layer *layer, Py_ssize_t first, Py_ssize_t count, float *y, float *x, float *mask,
                          Py_ssize_t *image) {
    const float *offset[BLOCK], *modulation[BLOCK];
    float line[BLOCK], column[BLOCK];
    for (Py_ssize_t p = 0; p < count; p++) {
        const Py_ssize_t row = (first + p) / layer->out_width, i = (first + p) % layer->out_width;
        const Py_ssize_t b = row / layer->out_height, j = row % layer->out_height;
        const Py_ssize_t *o = layer->offset_strides, *m = layer->mask_strides;
        offset[p] = layer->offset + b * o[0] + j * o[2] + i * o[3];
        modulation[p] = layer->mask + b * m[0] + j * m[2] + i * m[3];
        line[p] = (float) (j * layer->stride - layer->padding);
        column[p] = (float) (i * layer->stride - layer->padding);
        image[p] = b * layer->height * layer->width * layer->channels;
    }
    for (Py_ssize_t t = 0; t < layer->taps; t++) {
        const Py_ssize_t tap = t / layer->groups, k = layer->kernel, channel = t % layer->groups * k * k + tap;
        const float down = (float) (tap / k * layer->dilation), across = (float) (tap % k * layer->dilation);
        const Py_ssize_t at_y = 2 * channel * layer->offset_strides[1], at_x = at_y + layer->offset_strides[1];
        const Py_ssize_t at_mask = channel * layer->mask_strides[1];
        for (Py_ssize_t p = 0; p < count; p++) {
            y[t * BLOCK + p] = line[p] + down + offset[p][at_y];
            x[t * BLOCK + p] = column[p] + across + offset[p][at_x];
            mask[t * BLOCK + p] = modulation[p][at_mask];
        }
    }
}

/* Fill out [positions, out_channels] at `count` positions from `first` on. */
static void convolve_block(const Layer *layer, const Product *product, const float *x, float *out, Py_ssize_t first,
                           Py_ssize_t count, float *room, Multiply multiply) {
    const Py_ssize_t n = BLOCK * layer->taps, part = part_at_a_time(layer), taps = taps_at_a_time(layer);
    Py_ssize_t image[BLOCK];
    float *y = room, *x_ = y + n, *mask = x_ + n, *weight = mask + n, *columns = weight + 8 * n;
    float *sums = columns + BLOCK * taps * part;
    int32_t *cell = (int32_t *) (weight + 4 * n);
    const SampleBlock sample_block = best_sample_block(layer);
    look_at_block(layer, first, count, y, x_, mask, image);
    if (product->sigmoid) apply_sigmoid(mask, n);
    place_all(y, x_, mask, cell, weight, n, (int32_t) layer->height, (int32_t) layer->width);
    for (Py_ssize_t t = 0; t < layer->taps; t += taps)
        for (Py_ssize_t c = 0; c < layer->part; c += part) {
            const Py_ssize_t some = layer->taps - t < taps ? layer->taps - t : taps;
            const Py_ssize_t width = layer->part - c < part ? layer->part - c : part;
            sample_block(layer, x, image, cell, weight, columns, count, t, some, c, width);
            multiply(columns, some * width, count, some * width, product->weight + (t * layer->part + c) * LANES,
                     product->panels, layer->taps * layer->part * LANES, sums, t == 0 && c == 0);
        }
    for (Py_ssize_t p = 0; p < count; p++)
        finish_sums(out + (first + p) * product->out_channels, sums + p * product->panels * LANES, product->bias,
                    product->out_channels, product->relu);
}

/* As sample_block in int8, of all taps and channels: a map of bytes, weights as `place` gives whole ones, columns that
   lie `size` bytes apart. 255 * WHOLE and a half fit in 16 bits. */
typedef void (*SampleBytes)(const Layer *layer, const uint8_t *x, const Py_ssize_t *image, const int32_t *cell,
                            const uint16_t *whole, uint8_t *columns, Py_ssize_t size, Py_ssize_t count);
#define BLEND_WORDS(a, b, c, d) (wa * (a) + wb * (b) + wc * (c) + wd * (d) + start)
#define BLEND_WEIGHTS                                                                                                  \
    const uint16_t wa = whole[0], wb = whole[n], wc = whole[2 * n], wd = whole[3 * n], start = whole[4 * n];

/* The bytes of a tap that fill no vector. */
PER_CPU static void blend_bytes(uint8_t *__restrict out, const uint8_t *a, const uint8_t *b, const uint8_t *c,
                                const uint8_t *d, const uint16_t *whole, Py_ssize_t n, Py_ssize_t count) {
    BLEND_WEIGHTS
    for (Py_ssize_t i = 0; i < count; i++)
        out[i] = (uint8_t) ((uint16_t) BLEND_WORDS(a[i], b[i], c[i], d[i]) / WHOLE);
}

/* For processors with vectors of so many bytes; even and odd bytes are halves of words. */
#define DEFINE_SAMPLE_BYTES(NAME, TARGET, BYTES, BLEND_VECTOR)                                                         \
    TARGET static void NAME(const Layer *layer, const uint8_t *x, const Py_ssize_t *image, const int32_t *cell,        \
                            const uint16_t *whole, uint8_t *columns, Py_ssize_t size, Py_ssize_t count) {              \
        const Py_ssize_t n = BLOCK * layer->taps, channels = layer->channels, part = layer->part;                      \
        const Py_ssize_t taps = layer->taps, groups = layer->groups; /* bytes that are written could be `layer`'s */   \
        for (Py_ssize_t t = 0; t < taps; t++) {                                                                        \
            const uint8_t *group = x + t % groups * part;                                                              \
            for (Py_ssize_t p = 0; p < count; p++, cell++, whole++) {                                                  \
                const uint8_t *cells = group + image[p];                                                               \
                const uint8_t *a = cells + cell[0] * channels, *b = cells + cell[n] * channels;                        \
                const uint8_t *c = cells + cell[2 * n] * channels, *d = cells + cell[3 * n] * channels;                \
                BLEND_WEIGHTS                                                                                          \
                uint8_t *out = columns + p * size + t * part;                                                          \
                Py_ssize_t i = 0;                                                                                      \
                for (; i + BYTES <= part; i += BYTES) BLEND_VECTOR(NAME##_words)                                       \
                if (i < part) blend_bytes(out + i, a + i, b + i, c + i, d + i, whole, n, part - i);                    \
            }                                                                                                          \
            cell += BLOCK - count;                                                                                     \
            whole += BLOCK - count;                                                                                    \
        }                                                                                                              \
    }
#if defined(__GNUC__)
#define BLEND_VECTOR(WORDS)                                                                                            \
    {                                                                                                                  \
        const WORDS as = *(const WORDS *) (a + i), bs = *(const WORDS *) (b + i), cs = *(const WORDS *) (c + i);       \
        const WORDS ds = *(const WORDS *) (d + i), even = BLEND_WORDS(as & 255, bs & 255, cs & 255, ds & 255) >> 8;    \
        *(WORDS *) (out + i) = even | (BLEND_WORDS(as >> 8, bs >> 8, cs >> 8, ds >> 8) & 0xff00);                      \
    }
typedef uint16_t sample_bytes_plain_words __attribute__((vector_size(16), aligned(1), may_alias));
DEFINE_SAMPLE_BYTES(sample_bytes_plain, , 16, BLEND_VECTOR)
#if defined(__x86_64__)
typedef uint16_t sample_bytes_avx2_words __attribute__((vector_size(32), aligned(1), may_alias));
DEFINE_SAMPLE_BYTES(sample_bytes_avx2, __attribute__((target("avx2"))), 32, BLEND_VECTOR)
typedef uint16_t sample_bytes_avx512_words __attribute__((vector_size(64), aligned(1), may_alias));
DEFINE_SAMPLE_BYTES(sample_bytes_avx512, __attribute__((target("avx512bw"))), 64, BLEND_VECTOR)
#endif
#else
#define NO_VECTOR(WORDS) break;
DEFINE_SAMPLE_BYTES(sample_bytes_plain, , 16, NO_VECTOR)
#endif

/* The fastest that this processor has the instructions for and a tap has enough channels for. */
static SampleBytes best_sample_bytes(const Layer *layer) {
#if defined(__GNUC__) && defined(__x86_64__)
    if (layer->part >= 64 && __builtin_cpu_supports("avx512bw")) return sample_bytes_avx512;
    if (layer->part >= 32 && __builtin_cpu_supports("avx2")) return sample_bytes_avx2;
#endif
    (void) layer;
    return sample_bytes_plain;
}

/* Bytes of what the columns of a position take in int8, whole cache lines, and of the room that one thread needs. */
static Py_ssize_t int8_size(const Int8Product *product) { return (FOURS * product->steps + 63) / 64 * 64; }
static Py_ssize_t int8_room(const Layer *layer, const Int8Product *product) {
    const Py_ssize_t taps = layer->taps * (7 * sizeof(float) + 5 * sizeof(uint16_t));
    return BLOCK * (taps + product->panels * LANES * (Py_ssize_t) sizeof(int32_t) + int8_size(product));
}

/* out [count, out_channels] = sums [count, panels * LANES], scaled, + bias, with `relu` not below zero. */
PER_CPU static void finish_floats(float *__restrict out, const int32_t *sums, const Int8Product *product,
                                  Py_ssize_t count) {
    const Py_ssize_t channels = product->out_channels;
    for (Py_ssize_t p = 0; p < count; p++, out += channels, sums += product->panels * LANES)
        for (Py_ssize_t i = 0; i < channels; i++) {
            const float value = (float) sums[i] * product->scale[i] + product->bias[i];
            out[i] = product->relu && value < 0 ? 0 : value;
        }
}

/* The same to the nearest bytes. */
PER_CPU static void finish_bytes_plain(uint8_t *__restrict out, const int32_t *sums, const Int8Product *product,
                                       Py_ssize_t count) {
    const Py_ssize_t channels = product->out_channels, step = product->panels * LANES;
    const float *scale = product->scale, *bias = product->bias;
    for (Py_ssize_t p = 0; p < count; p++, out += channels, sums += step)
        for (Py_ssize_t i = 0; i < channels; i++) out[i] = nearest_byte((float) sums[i] * scale[i] + bias[i]);
}
#ifdef HAS_AVX512
AVX512 static void finish_bytes_avx512(uint8_t *out, const int32_t *sums, const Int8Product *product,
                                       Py_ssize_t count) {
    const Py_ssize_t channels = product->out_channels, step = product->panels * LANES;
    const float *scale = product->scale, *bias = product->bias;
    for (Py_ssize_t p = 0; p < count; p++, out += channels, sums += step) {
        Py_ssize_t i = 0;
        for (; i + 16 <= channels; i += 16)
            put_nearest_bytes(out + i, _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_loadu_si512(sums + i)),
                                                       _mm512_loadu_ps(scale + i), _mm512_loadu_ps(bias + i)));
        for (; i < channels; i++) out[i] = nearest_byte((float) sums[i] * scale[i] + bias[i]);
    }
}
#endif
static void finish_bytes(uint8_t *out, const int32_t *sums, const Int8Product *product, Py_ssize_t count) {
#ifdef HAS_AVX512
    if (has_avx512()) {
        finish_bytes_avx512(out, sums, product, count);
        return;
    }
#endif
    finish_bytes_plain(out, sums, product, count);
}

/* As convolve_block, of a map of bytes; `out` is one of floats, or of bytes where that is given instead. */
static void convolve_block_int8(const Layer *layer, const Int8Product *product, const uint8_t *x, float *out,
                                uint8_t *bytes, Py_ssize_t first, Py_ssize_t count, char *room, MultiplyInt8 multiply) {
    const Py_ssize_t n = BLOCK * layer->taps, size = int8_size(product);
    Py_ssize_t image[BLOCK];
    float *y = (float *) room, *x_ = y + n, *mask = x_ + n;
    int32_t *cell = (int32_t *) (mask + n), *sums = cell + 4 * n;
    uint8_t *columns = (uint8_t *) (sums + BLOCK * product->panels * LANES);
    uint16_t *whole = (uint16_t *) (columns + BLOCK * size);
    look_at_block(layer, first, count, y, x_, mask, image);
    apply_sigmoid(mask, n);
    place_whole(y, x_, mask, cell, whole, product->zero, n, (int32_t) layer->height, (int32_t) layer->width);
    best_sample_bytes(layer)(layer, x, image, cell, whole, columns, size, count);
    for (Py_ssize_t step = 0; step < product->steps; step += MOST_INT8_COLUMN / FOURS) {
        const Py_ssize_t left = product->steps - step;
        multiply(columns + FOURS * step, size, count, left < MOST_INT8_COLUMN / FOURS ? left : MOST_INT8_COLUMN / FOURS,
                 product->weight + step * LANES * FOURS, product->panels, product->steps * LANES * FOURS, sums,
                 step == 0);
    }
    if (bytes) finish_bytes(bytes + first * product->out_channels, sums, product, count);
    else finish_floats(out + first * product->out_channels, sums, product, count);
}

#endif
