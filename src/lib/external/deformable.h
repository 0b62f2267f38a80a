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

#define BLOCK 48      /* positions of a block: a multiple of MOST_ROWS and WIDTH */
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
    const int8_t *weight;    /* [panels, steps, LANES, FOURS], zeros beyond the columns of a position */
    const float *scale;      /* [out_channels], what 1 of a weight stands for */
    const float *weight_sum; /* [out_channels], the sum of what the weights stand for */
    const float *bias;       /* [out_channels] */
    Py_ssize_t panels, steps, out_channels;
    int sigmoid, relu;
} Int8Product;

#if defined(__GNUC__)
#define WIDTH 8 /* floats of a vector */
typedef float Floats __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));
#define TO_FLOATS(ints) __builtin_convertvector(ints, Floats)
#define TO_INTS(floats) __builtin_convertvector(floats, Ints) /* towards zero */
#define AS_FLOATS(bits) ((Floats) (bits))
#define CHOOSE(where, one, other) (((where) & (one)) | (~(where) & (other)))
#define CHOOSE_FLOATS(where, one, other) ((Floats) CHOOSE(where, (Ints) (one), (Ints) (other)))
#define TRUTH(comparison) (comparison) /* all bits of where it holds */
#else
#define WIDTH 1
typedef float Floats;
typedef int32_t Ints;
#define TO_FLOATS(ints) ((float) (ints))
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

/* The four cells around each of n places y, x and their weights, modulated: cell k of place i is [k * n + i]. */
PER_CPU static void place_all(const float *y, const float *x, const float *mask, int32_t *cell, float *weight,
                              Py_ssize_t n, int32_t height, int32_t width) {
    const float high = height, wide = width;
    const Floats zero = {0};
    const Ints none = {0}, last_row = none + (height - 1), last_column = none + (width - 1);
    for (Py_ssize_t i = 0; i < n; i += WIDTH) {
        const Floats given_y = *(const Floats *) (y + i), given_x = *(const Floats *) (x + i);
        const Ints inside = TRUTH(given_y >= -1) & TRUTH(given_y <= high) & TRUTH(given_x >= -1) &
                            TRUTH(given_x <= wide); /* not at NaN */
        const Floats at_y = CHOOSE_FLOATS(inside, given_y, zero), at_x = CHOOSE_FLOATS(inside, given_x, zero);
        const Floats scale = CHOOSE_FLOATS(inside, *(const Floats *) (mask + i), zero);
        const Ints top = TO_INTS(at_y + 1) - 1, left = TO_INTS(at_x + 1) - 1; /* the floor, of numbers from -1 on */
        const Ints has_top = TRUTH(top >= none) & TRUTH(top <= last_row), has_bottom = TRUTH(top < last_row);
        const Ints has_left = TRUTH(left >= none) & TRUTH(left <= last_column), has_right = TRUTH(left < last_column);
        const Floats part_y = at_y - TO_FLOATS(top), part_x = at_x - TO_FLOATS(left);
        const Floats above = CHOOSE_FLOATS(has_top, (1 - part_y) * scale, zero);
        const Floats below = CHOOSE_FLOATS(has_bottom, part_y * scale, zero);
        const Floats before = CHOOSE_FLOATS(has_left, 1 - part_x, zero);
        const Floats after = CHOOSE_FLOATS(has_right, part_x, zero);
        /* A cell outside counts nothing; one that is there is read in its place. */
        const Ints y0 = CHOOSE(has_top, top, none) * width, y1 = CHOOSE(has_bottom, top + 1, none) * width;
        const Ints x0 = CHOOSE(has_left, left, none), x1 = CHOOSE(has_right, left + 1, none);
        *(Ints *) (cell + i) = y0 + x0;
        *(Ints *) (cell + n + i) = y0 + x1;
        *(Ints *) (cell + 2 * n + i) = y1 + x0;
        *(Ints *) (cell + 3 * n + i) = y1 + x1;
        *(Floats *) (weight + i) = above * before;
        *(Floats *) (weight + n + i) = above * after;
        *(Floats *) (weight + 2 * n + i) = below * before;
        *(Floats *) (weight + 3 * n + i) = below * after;
    }
}

/* Fill columns [count, taps * part], of the positions from `start` on, with what `taps` taps from `first` on see of
   `part` channels from `channel` on. */
PER_CPU static void sample_block(const Layer *layer, const float *const *image, const int32_t *cell,
                                 const float *weight, float *columns, Py_ssize_t start, Py_ssize_t count,
                                 Py_ssize_t first, Py_ssize_t taps, Py_ssize_t channel, Py_ssize_t part) {
    const Py_ssize_t n = BLOCK * layer->taps, channels = layer->channels;
    for (Py_ssize_t p = start; p < start + count; p++)
        for (Py_ssize_t t = first; t < first + taps; t++) {
            const Py_ssize_t at = t * BLOCK + p;
            const float *x = image[p] + t % layer->groups * layer->part + channel;
            const float *a = x + cell[at] * channels, *b = x + cell[n + at] * channels;
            const float *c = x + cell[2 * n + at] * channels, *d = x + cell[3 * n + at] * channels;
            const float wa = weight[at], wb = weight[n + at], wc = weight[2 * n + at], wd = weight[3 * n + at];
            float *__restrict out = columns;
            for (Py_ssize_t i = 0; i < part; i++) out[i] = wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i];
            columns += part;
        }
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

/* Set where all taps of positions look, y, x and mask [taps, BLOCK], and the image of each position. */
static void look_at_block(const Layer *layer, const float *x, Py_ssize_t first, Py_ssize_t count, float *y, float *x_,
                          float *mask, const float **image) {
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
        image[p] = x + b * layer->height * layer->width * layer->channels;
    }
    for (Py_ssize_t t = 0; t < layer->taps; t++) {
        const Py_ssize_t tap = t / layer->groups, k = layer->kernel, channel = t % layer->groups * k * k + tap;
        const float down = (float) (tap / k * layer->dilation), across = (float) (tap % k * layer->dilation);
        const Py_ssize_t at_y = 2 * channel * layer->offset_strides[1], at_x = at_y + layer->offset_strides[1];
        const Py_ssize_t at_mask = channel * layer->mask_strides[1];
        for (Py_ssize_t p = 0; p < count; p++) {
            y[t * BLOCK + p] = line[p] + down + offset[p][at_y];
            x_[t * BLOCK + p] = column[p] + across + offset[p][at_x];
            mask[t * BLOCK + p] = modulation[p][at_mask];
        }
    }
}

/* Fill out [positions, out_channels] at `count` positions from `first` on. */
static void convolve_block(const Layer *layer, const Product *product, const float *x, float *out, Py_ssize_t first,
                           Py_ssize_t count, float *room, Multiply multiply) {
    const Py_ssize_t n = BLOCK * layer->taps, part = part_at_a_time(layer), taps = taps_at_a_time(layer);
    const float *image[BLOCK];
    float *y = room, *x_ = y + n, *mask = x_ + n, *weight = mask + n, *columns = weight + 8 * n;
    float *sums = columns + BLOCK * taps * part;
    int32_t *cell = (int32_t *) (weight + 4 * n);
    look_at_block(layer, x, first, count, y, x_, mask, image);
    if (product->sigmoid) apply_sigmoid(mask, n);
    place_all(y, x_, mask, cell, weight, n, (int32_t) layer->height, (int32_t) layer->width);
    for (Py_ssize_t t = 0; t < layer->taps; t += taps)
        for (Py_ssize_t c = 0; c < layer->part; c += part) {
            const Py_ssize_t some = layer->taps - t < taps ? layer->taps - t : taps;
            const Py_ssize_t width = layer->part - c < part ? layer->part - c : part;
            sample_block(layer, image, cell, weight, columns, 0, count, t, some, c, width);
            multiply(columns, some * width, count, some * width, product->weight + (t * layer->part + c) * LANES,
                     product->panels, layer->taps * layer->part * LANES, sums, t == 0 && c == 0);
        }
    for (Py_ssize_t p = 0; p < count; p++)
        finish_sums(out + (first + p) * product->out_channels, sums + p * product->panels * LANES, product->bias,
                    product->out_channels, product->relu);
}

/* Whole numbers in the order of floats, NaN beyond all others: their least and largest are found in vectors. */
static inline int32_t in_order(float value) {
    int32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits ^ (bits >> 31 & INT32_MAX);
}
static inline float of_order(int32_t place) {
    const int32_t bits = place ^ (place >> 31 & INT32_MAX);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Round n floats to bytes: the least becomes 0 and the largest 255. Returns what 0 and 1 stand for. */
typedef struct {
    float least, step;
} Scale;
PER_CPU static Scale quantize(const float *__restrict values, uint8_t *__restrict bytes, Py_ssize_t n) {
    int32_t low = INT32_MAX, high = INT32_MIN;
    for (Py_ssize_t i = 0; i < n; i++) {
        const int32_t place = in_order(values[i]);
        low = place < low ? place : low;
        high = place > high ? place : high;
    }
    const float least = of_order(low), most = of_order(high);
    const float inverse = most > least ? 255 / (most - least) : 0;
    for (Py_ssize_t i = 0; i < n; i++) bytes[i] = (uint8_t) (int32_t) ((values[i] - least) * inverse + 0.5f);
    return (Scale){least, (most - least) / 255};
}

/* Bytes of what the columns of a position take in int8, whole cache lines, and of the room that one thread needs. */
static Py_ssize_t int8_size(const Int8Product *product) { return (FOURS * product->steps + 63) / 64 * 64; }
static Py_ssize_t int8_room(const Layer *layer, const Int8Product *product) {
    const Py_ssize_t column = layer->taps * layer->part;
    return BLOCK * ((11 * layer->taps + product->panels * LANES) * (Py_ssize_t) sizeof(float) + int8_size(product)) +
           column * (Py_ssize_t) sizeof(float);
}

/* out = n sums, scaled, + bias, with `relu` not below zero */
PER_CPU static void finish_int8(float *__restrict out, const int32_t *sums, const Int8Product *product, Scale column) {
    for (Py_ssize_t i = 0; i < product->out_channels; i++) {
        const float whole = (float) sums[i] * (column.step * product->scale[i]);
        const float value = whole + (column.least * product->weight_sum[i] + product->bias[i]);
        out[i] = product->relu && value < 0 ? 0 : value;
    }
}

/* As convolve_block, in int8: the columns of each position are rounded between their least and their largest value. */
static void convolve_block_int8(const Layer *layer, const Int8Product *product, const float *x, float *out,
                                Py_ssize_t first, Py_ssize_t count, char *room, MultiplyInt8 multiply) {
    const Py_ssize_t n = BLOCK * layer->taps, size = int8_size(product), width = layer->taps * layer->part;
    const float *image[BLOCK];
    Scale scale[BLOCK];
    float *y = (float *) room, *x_ = y + n, *mask = x_ + n, *weight = mask + n, *column = weight + 8 * n;
    int32_t *cell = (int32_t *) (weight + 4 * n), *sums = (int32_t *) (column + width);
    uint8_t *columns = (uint8_t *) (sums + BLOCK * product->panels * LANES);
    look_at_block(layer, x, first, count, y, x_, mask, image);
    if (product->sigmoid) apply_sigmoid(mask, n);
    place_all(y, x_, mask, cell, weight, n, (int32_t) layer->height, (int32_t) layer->width);
    for (Py_ssize_t p = 0; p < count; p++) {
        sample_block(layer, image, cell, weight, column, p, 1, 0, layer->taps, 0, layer->part);
        scale[p] = quantize(column, columns + p * size, width);
    }
    for (Py_ssize_t step = 0; step < product->steps; step += MOST_INT8_COLUMN / FOURS) {
        const Py_ssize_t left = product->steps - step;
        multiply(columns + FOURS * step, size, count, left < MOST_INT8_COLUMN / FOURS ? left : MOST_INT8_COLUMN / FOURS,
                 product->weight + step * LANES * FOURS, product->panels, product->steps * LANES * FOURS, sums,
                 step == 0);
    }
    for (Py_ssize_t p = 0; p < count; p++)
        finish_int8(out + (first + p) * product->out_channels, sums + p * product->panels * LANES, product, scale[p]);
}

#endif
