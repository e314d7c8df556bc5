/* Batch norm, leaky integrate-and-fire and max pooling for CPUs; cpu.py compiles and calls this.

   A current is [frames, channels, height * width], contiguous, with frames = steps * batch, or batch
   for a constant current, which every step then reads again. Whatever a step leaves to the next stays
   in registers or in the first cache; memory sees a current once and spikes once.

   Products and sums are rounded one by one (-ffp-contract=off), in the order in which oracle.py
   writes them, so that spikes are the oracle's to the bit. Each plane, one channel of one clip, is
   one thread's, and sums over planes are taken in their order: the result does not depend on the
   number of threads. Pooling is 3x3 with stride 2 and padding 1, and a window's gradient goes to the
   first of its spikes in reading order, or to its first place where there is none, as in torch. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t size;

typedef struct {
    size steps, batch, channels, height, width, constant;
    float rate, threshold, slope;
} Layer;

/* Neurons that are carried through all steps together. */
#define BLOCK 64

static inline float charge(float current, float membrane, float rate) {
    return membrane + (current - membrane) * rate;
}

/* a * b + c where nobody counts on how it is rounded. */
static inline float about(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* 2^x for x <= 0; below -125 as at -125. */
static inline float power_of_two(float x) {
    x = x < -125.0f ? -125.0f : x;
    union { float value; int32_t bits; } whole = {x + 12582912.0f}, power;
    const float f = x - (whole.value - 12582912.0f), f2 = f * f;
    const float low = about(f, 6.931472028550421e-1f, 1.0f);
    const float middle = about(f, 5.550332471162809e-2f, 2.402264791363012e-1f);
    const float high = about(f, 1.339887440266574e-3f, 9.618437357674640e-3f);
    power.value = about(about(about(1.535336188319500e-4f, f2, high), f2, middle), f2, low);
    /* The lowest bits of whole are the exponent. */
    power.bits += (int32_t)((uint32_t)whole.bits << 23);
    return power.value;
}

/* slope * sig(slope * u) * (1 - sig(slope * u)) * rate, which is even in u. */
static inline float derivative(float potential, Layer layer) {
    const float e = power_of_two(-1.44269504f * layer.slope * fabsf(potential - layer.threshold));
    return layer.slope * layer.rate * e / ((1.0f + e) * (1.0f + e));
}

/* Mean and biased variance of each channel, from sums about its first value. They are taken in double
   precision: a mean that is off in its last digit moves a neuron over its threshold now and then. */
void avsnn_moments(const float *x, size frames, size channels, size area, double *mean, double *var) {
#pragma omp parallel for schedule(static)
    for (size c = 0; c < channels; c++) {
        const float centre = x[c * area];
        double sum = 0, square = 0, n = (double)(frames * area);
        for (size f = 0; f < frames; f++) {
            const float *in = x + (f * channels + c) * area;
#pragma omp simd reduction(+ : sum, square)
            for (size j = 0; j < area; j++) {
                double d = (double)(in[j] - centre);
                sum += d;
                square += d * d;
            }
        }
        double variance = (square - sum * sum / n) / n;
        mean[c] = (double)centre + sum / n;
        var[c] = variance > 0 ? variance : 0;
    }
}

/* One step of n neurons; what their membranes keep is for the next. */
static inline void fire(const float *restrict in, float a, float b, float *restrict membrane,
                        float *restrict spikes, size n, Layer layer) {
#pragma omp simd
    for (size j = 0; j < n; j++) {
        float h = charge(in[j] * a + b, membrane[j], layer.rate);
        int fires = h >= layer.threshold;
        spikes[j] = (float)fires;
        membrane[j] = fires ? 0.0f : h;
    }
}

/* current = x * scale + shift; spikes [steps, batch, channels, area]. scale may be NULL: x itself. */
void avsnn_fire(const float *x, const float *scale, const float *shift, float *spikes, Layer L) {
    const size area = L.height * L.width, planes = L.batch * L.channels, step = planes * area;
    const size between = L.constant ? 0 : step;
#pragma omp parallel for schedule(static)
    for (size p = 0; p < planes; p++) {
        const float a = scale ? scale[p % L.channels] : 1.0f;
        const float b = scale ? shift[p % L.channels] : 0.0f;
        for (size i = 0; i < area; i += BLOCK) {
            const size n = area - i < BLOCK ? area - i : BLOCK;
            float membrane[BLOCK] = {0};
            for (size t = 0; t < L.steps; t++)
                fire(x + t * between + p * area + i, a, b, membrane, spikes + t * step + p * area + i,
                     n, L);
        }
    }
}

/* The sum of BLOCK values, which it overwrites. */
static float add_lanes(float *lanes) {
    for (int half = BLOCK / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[half + j];
    return lanes[0];
}

/* Pairs of sums of planes to those of channels, in the order of the planes. */
static void sum_planes(const double *partial, size planes, size channels, double *sums) {
    for (size c = 0; c < channels; c++) {
        sums[2 * c] = sums[2 * c + 1] = 0;
        for (size p = c; p < planes; p += channels) {
            sums[2 * c] += partial[2 * p];
            sums[2 * c + 1] += partial[2 * p + 1];
        }
    }
}

/* The same of gradients, with what each lane adds to the sums. */
static inline void send_back(const float *restrict in, const float *restrict grad, float a, float b,
                             float middle, float *restrict membrane, float *restrict out,
                             float *restrict sum, float *restrict product, size n, int adds, Layer layer) {
#pragma omp simd
    for (size j = 0; j < n; j++) {
        const float h = charge(in[j] * a + b, membrane[j], layer.rate);
        const float d = grad[j] * derivative(h, layer);
        membrane[j] = h >= layer.threshold ? 0.0f : h;
        out[j] = adds ? out[j] + d : d;
        sum[j] += d;
        product[j] = about(d, in[j] - middle, product[j]);
    }
}

/* Gradients of the spikes to those of the current, [frames, channels, area], with the sums over each
   channel of them and of them times (x - mean), into sums [channels, 2]. centre may be NULL: 0. */
void avsnn_fire_backward(const float *grad, const float *x, const float *scale, const float *shift,
                         const float *centre, float *out, double *sums, Layer L) {
    const size area = L.height * L.width, planes = L.batch * L.channels, step = planes * area;
    const size between = L.constant ? 0 : step;
    double *partial = calloc(2 * planes, sizeof(double));
#pragma omp parallel for schedule(static)
    for (size p = 0; p < planes; p++) {
        const float a = scale ? scale[p % L.channels] : 1.0f;
        const float b = scale ? shift[p % L.channels] : 0.0f;
        const float middle = centre ? centre[p % L.channels] : 0.0f;
        float sum[BLOCK] = {0}, product[BLOCK] = {0};
        for (size i = 0; i < area; i += BLOCK) {
            const size n = area - i < BLOCK ? area - i : BLOCK;
            float membrane[BLOCK] = {0}, total[BLOCK] = {0};
            for (size t = 0; t < L.steps; t++) {
                const float *in = x + t * between + p * area + i;
                const float *g = grad + t * step + p * area + i;
                float *o = out + t * step + p * area + i;
                if (L.constant)
                    send_back(in, g, a, b, middle, membrane, total, sum, product, n, 1, L);
                else
                    send_back(in, g, a, b, middle, membrane, o, sum, product, n, 0, L);
            }
            if (L.constant) memcpy(out + p * area + i, total, n * sizeof(float));
        }
        partial[2 * p] = add_lanes(sum);
        partial[2 * p + 1] = add_lanes(product);
    }
    sum_planes(partial, planes, L.channels, sums);
    free(partial);
}

/* Spikes, then 3x3 max pooling: [steps, batch, channels, (height + 1) / 2, (width + 1) / 2]. Spikes of
   three rows exist at a time. */
void avsnn_fire_pool(const float *x, const float *scale, const float *shift, float *pooled, Layer L) {
    const size planes = L.batch * L.channels, area = L.height * L.width;
    const size high = (L.height + 1) / 2, wide = (L.width + 1) / 2, between = planes * area;
    /* A row with a place of padding on the left and up to two on the right. */
    const size row = 2 * wide + 2;
#pragma omp parallel
    {
        float *rows = calloc(L.steps * 3 * row, sizeof(float));
        float *tallest = calloc(row, sizeof(float));
        float *membrane = calloc(L.width, sizeof(float));
#pragma omp for schedule(static)
        for (size p = 0; p < planes; p++) {
            const float a = scale ? scale[p % L.channels] : 1.0f;
            const float b = scale ? shift[p % L.channels] : 0.0f;
            memset(rows, 0, L.steps * 3 * row * sizeof(float));
            for (size r = 0; r < 2 * high; r++) {
                memset(membrane, 0, L.width * sizeof(float));
                for (size t = 0; t < L.steps; t++) {
                    float *s = rows + (t * 3 + r % 3) * row + 1;
                    if (r < L.height)
                        fire(x + (L.constant ? 0 : t * between) + p * area + r * L.width, a, b,
                             membrane, s, L.width, L);
                    else
                        memset(s, 0, L.width * sizeof(float));
                    if (r % 2 == 0) continue;
                    const float *r0 = rows + t * 3 * row, *r1 = r0 + row, *r2 = r1 + row;
#pragma omp simd
                    for (size j = 0; j < row; j++) {
                        float m = r0[j] > r1[j] ? r0[j] : r1[j];
                        tallest[j] = m > r2[j] ? m : r2[j];
                    }
                    float *o = pooled + ((t * planes + p) * high + r / 2) * wide;
#pragma omp simd
                    for (size j = 0; j < wide; j++) {
                        float m = tallest[2 * j] > tallest[2 * j + 1] ? tallest[2 * j]
                                                                      : tallest[2 * j + 1];
                        o[j] = m > tallest[2 * j + 2] ? m : tallest[2 * j + 2];
                    }
                }
            }
        }
        free(rows), free(tallest), free(membrane);
    }
}

/* One row of potentials, columns 0, 2, 4, ... apart from 1, 3, 5, ...; before the first odd column
   and behind the last one stands what never fires. */
typedef struct {
    float *even, *odd;
} Row;

/* The winner of each window of one row of windows, as its place 0 to 8, and what its potential and
   the window's gradient make the gradient of its current. */
static void find_winners(Row top, Row middle, Row bottom, int first_row, size wide, const float *grad,
                         int32_t *restrict place, float *restrict share, Layer layer) {
    const int32_t start = first_row ? 3 : 0;
    const float *before = (first_row ? middle : top).odd - 1, *t0 = top.odd - 1, *t1 = top.even;
    const float *t2 = top.odd, *m0 = middle.odd - 1, *m1 = middle.even, *m2 = middle.odd;
    const float *b0 = bottom.odd - 1, *b1 = bottom.even, *b2 = bottom.odd;
    const float level = layer.threshold;
#define TAKE(potentials, number)                             \
    fires = potentials[j] >= level;                          \
    which = fires ? (number) : which;                        \
    potential = fires ? potentials[j] : potential;
#pragma omp simd
    for (size j = 0; j < wide; j++) {
        int32_t which = start, fires;
        float potential = before[j];
        TAKE(b2, 8) TAKE(b1, 7) TAKE(b0, 6) TAKE(m2, 5) TAKE(m1, 4) TAKE(m0, 3)
        TAKE(t2, 2) TAKE(t1, 1) TAKE(t0, 0)
        place[j] = which;
        share[j] = grad[j] * derivative(potential, layer);
    }
#undef TAKE
    /* Before the first column there is nothing that could win. */
    if (place[0] == start) {
        place[0] = start + 1;
        share[0] = grad[0] * derivative((first_row ? middle : top).even[0], layer);
    }
}

/* Adds what the windows of one row of windows send to a row of places, which are their k, k + 1 and
   k + 2. */
static inline void spread(const int32_t *restrict place, const float *restrict share, int32_t k,
                          size wide, float *restrict even, float *restrict odd) {
#pragma omp simd
    for (size j = 0; j < wide; j++) {
        const float own = share[j], next = share[j + 1];
        const int32_t winner = place[j], after = place[j + 1];
        even[j] += winner == k + 1 ? own : 0.0f;
        odd[j] += (winner == k + 2 ? own : 0.0f) + (after == k ? next : 0.0f);
    }
}

/* As avsnn_fire_backward, from gradients of what avsnn_fire_pool gives. */
void avsnn_fire_pool_backward(const float *grad, const float *x, const float *scale,
                              const float *shift, const float *centre, float *out, double *sums,
                              Layer L) {
    const size planes = L.batch * L.channels, area = L.height * L.width;
    const size high = (L.height + 1) / 2, wide = (L.width + 1) / 2, between = planes * area;
    const size half = wide + 2, row = 2 * half, grads = L.constant ? 1 : L.steps;
    double *partial = calloc(2 * planes, sizeof(double));
#pragma omp parallel
    {
        float *potentials = malloc(L.steps * 3 * row * sizeof(float));
        float *gradients = malloc(grads * 3 * row * sizeof(float));
        float *membrane = calloc(2 * half, sizeof(float));
        float *current = calloc(2 * half, sizeof(float));
        float *share = malloc(half * sizeof(float));
        int32_t *place = malloc(half * sizeof(int32_t));
        float *line = malloc((2 * wide + 2) * sizeof(float));
#define ROW(base, t, r)                                                                \
    ((Row){(base) + ((t) * 3 + ((r) + 3) % 3) * row, (base) + ((t) * 3 + ((r) + 3) % 3) * row + half + 1})
#pragma omp for schedule(static)
        for (size p = 0; p < planes; p++) {
            const float a = scale ? scale[p % L.channels] : 1.0f;
            const float b = scale ? shift[p % L.channels] : 0.0f;
            const float middle = centre ? centre[p % L.channels] : 0.0f;
            float sum[BLOCK] = {0}, product[BLOCK] = {0};
            for (size i = 0; i < L.steps * 3 * row; i++) potentials[i] = -INFINITY;
            memset(gradients, 0, grads * 3 * row * sizeof(float));
            for (size i = 0; i < high; i++) {
                for (size r = 2 * i; r < 2 * i + 2; r++) {
                    memset(membrane, 0, 2 * half * sizeof(float));
                    for (size t = 0; t < L.steps; t++) {
                        Row h = ROW(potentials, t, r);
                        if (r >= L.height) {
                            for (size j = 0; j < wide; j++) h.even[j] = h.odd[j] = -INFINITY;
                            continue;
                        }
                        const float *in =
                            x + (L.constant ? 0 : t * between) + p * area + r * L.width;
                        if (t == 0 || !L.constant) {
                            const size odds = L.width / 2;
#pragma omp simd
                            for (size j = 0; j < odds; j++) {
                                current[j] = in[2 * j] * a + b;
                                current[half + j] = in[2 * j + 1] * a + b;
                            }
                            if (L.width % 2) current[odds] = in[2 * odds] * a + b;
                        }
#pragma omp simd
                        for (size j = 0; j < wide; j++) {
                            float e = charge(current[j], membrane[j], L.rate);
                            float o = charge(current[half + j], membrane[half + j], L.rate);
                            h.even[j] = e;
                            h.odd[j] = o;
                            membrane[j] = e >= L.threshold ? 0.0f : e;
                            membrane[half + j] = o >= L.threshold ? 0.0f : o;
                        }
                        if (L.width % 2) h.odd[wide - 1] = -INFINITY;
                    }
                }
                for (size t = 0; t < L.steps; t++) {
                    const float *g = grad + ((t * planes + p) * high + i) * wide;
                    find_winners(ROW(potentials, t, 2 * i - 1), ROW(potentials, t, 2 * i),
                                 ROW(potentials, t, 2 * i + 1), i == 0, wide, g, place, share, L);
                    share[wide] = 0.0f;
                    place[wide] = 9;
                    const size to = L.constant ? 0 : t;
                    for (int k = 0; k < 3; k++) {
                        Row row_of_places = ROW(gradients, to, 2 * i - 1 + k);
                        spread(place, share, 3 * k, wide, row_of_places.even, row_of_places.odd);
                    }
                }
                /* Nothing more comes to the two rows before the bottom one, at the end to none. */
                const size last = i + 1 == high ? 2 * i + 1 : 2 * i;
                for (size r = i ? 2 * i - 1 : 0; r <= last; r++)
                    for (size t = 0; t < grads; t++) {
                        Row d = ROW(gradients, t, r);
                        if (r < L.height) {
                            const size at = (L.constant ? 0 : t * between) + p * area + r * L.width;
#pragma omp simd
                            for (size j = 0; j < wide; j++) {
                                line[2 * j] = d.even[j];
                                line[2 * j + 1] = d.odd[j];
                            }
                            for (size from = 0; from < L.width; from += BLOCK) {
                                const size n = L.width - from < BLOCK ? L.width - from : BLOCK;
                                const float *in = x + at + from, *sent = line + from;
                                float *o = out + at + from;
#pragma omp simd
                                for (size j = 0; j < n; j++) {
                                    o[j] = sent[j];
                                    sum[j] += sent[j];
                                    product[j] = about(sent[j], in[j] - middle, product[j]);
                                }
                            }
                        }
                        memset(d.even, 0, wide * sizeof(float));
                        memset(d.odd, 0, wide * sizeof(float));
                    }
            }
            partial[2 * p] = add_lanes(sum);
            partial[2 * p + 1] = add_lanes(product);
        }
        free(potentials), free(gradients), free(membrane), free(current);
        free(share), free(place), free(line);
    }
    sum_planes(partial, planes, L.channels, sums);
    free(partial);
}

/* grad = grad * a + x * b + c for each channel, in place: what batch norm does to a gradient. */
void avsnn_norm_backward(float *grad, const float *x, const float *a, const float *b, const float *c,
                         size frames, size channels, size area) {
#pragma omp parallel for schedule(static)
    for (size p = 0; p < frames * channels; p++) {
        const float by = a[p % channels], of = b[p % channels], more = c[p % channels];
        float *g = grad + p * area;
        const float *in = x + p * area;
#pragma omp simd
        for (size j = 0; j < area; j++) g[j] = g[j] * by + in[j] * of + more;
    }
}

typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));

/* from [rows, columns], rows between apart, to [columns, rows], apart likewise; 8 x 8 at a time. */
static void turn(const float *from, size rows, size columns, size between, float *to, size apart) {
    const size r8 = rows / 8 * 8, c8 = columns / 8 * 8;
#define IN(k) (*(const Lanes *)(from + (r + (k)) * between + c))
#define OUT(k) (*(Lanes *)(to + (c + (k)) * apart + r))
#define MIX __builtin_shufflevector
    for (size r = 0; r < r8; r += 8)
        for (size c = 0; c < c8; c += 8) {
            Lanes a[8], b[8];
            for (int k = 0; k < 8; k += 2) {
                a[k] = MIX(IN(k), IN(k + 1), 0, 8, 1, 9, 4, 12, 5, 13);
                a[k + 1] = MIX(IN(k), IN(k + 1), 2, 10, 3, 11, 6, 14, 7, 15);
            }
            for (int k = 0; k < 8; k += 4)
                for (int h = 0; h < 2; h++) {
                    b[k + 2 * h] = MIX(a[k + h], a[k + h + 2], 0, 1, 8, 9, 4, 5, 12, 13);
                    b[k + 2 * h + 1] = MIX(a[k + h], a[k + h + 2], 2, 3, 10, 11, 6, 7, 14, 15);
                }
            for (int k = 0; k < 4; k++) {
                OUT(k) = MIX(b[k], b[k + 4], 0, 1, 2, 3, 8, 9, 10, 11);
                OUT(k + 4) = MIX(b[k], b[k + 4], 4, 5, 6, 7, 12, 13, 14, 15);
            }
        }
#undef IN
#undef OUT
#undef MIX
    for (size r = 0; r < rows; r++)
        for (size c = r < r8 ? c8 : 0; c < columns; c++) to[c * apart + r] = from[r * between + c];
}

/* The most that one place of the input of a 1x1 convolution may hold: sums of up to three spikes. */
#define MOST 3
#define CHUNK 1024

/* Packs n values into bytes; how many are not zero, or -1 where one is no whole number up to most. */
size avsnn_pack(const float *x, uint8_t *packed, size n, float most) {
    size total = 0, strange = 0;
#pragma omp parallel for reduction(+ : total, strange) schedule(static)
    for (size start = 0; start < n; start += CHUNK) {
        const size end = n - start < CHUNK ? n - start : CHUNK;
        const float *in = x + start;
        int32_t whole[CHUNK], fired = 0, odd = 0;
#pragma omp simd reduction(+ : fired, odd)
        for (size i = 0; i < end; i++) {
            const float capped = in[i] < most ? in[i] : most;
            whole[i] = (int32_t)(capped > 0.0f ? capped : 0.0f);
            odd += (float)whole[i] != in[i];
            fired += whole[i] != 0;
        }
        for (size i = 0; i < end; i++) packed[start + i] = (uint8_t)whole[i];
        total += fired, strange += odd;
    }
    return strange ? -1 : total;
}

/* Calls for every byte that is not zero, in order, as often as it says. */
#define FOR_EACH_EVENT(bytes, count, place, what)                                              \
    for (size word = 0; word < (count); word += 8) {                                           \
        uint64_t left = 0;                                                                     \
        memcpy(&left, (bytes) + word, (count) - word < 8 ? (count) - word : 8);                \
        for (size place = word; left; place++, left >>= 8)                                     \
            for (uint8_t n = (uint8_t)left; n; n--) what;                                      \
    }

/* Convolutions of spikes, one byte each: every spike adds its weights to where they belong, and nothing
   is done where there is none. Channels of the output go by blocks of the same size, which lie innermost
   in weights and sums.

   3x3 with padding 1: weights [blocks, inputs, 3, 3, block], columns in reverse, so that what one spike
   adds to one row is one run of 3 * block sums. */

/* The columns of the spikes in each row of a plane; row r has those from starts[r] on. */
static void find_spikes(const uint8_t *plane, size height, size width, uint16_t *columns,
                        int32_t *starts) {
    int32_t n = 0;
    for (size r = 0; r < height; r++) {
        starts[r] = n;
        for (size c = 0; c < width; c++) {
            columns[n] = (uint16_t)c;
            n += plane[r * width + c] != 0;
        }
    }
    starts[height] = n;
}

/* x [frames, inputs, height, width] to out [frames, blocks * block, height, width]. */
void avsnn_spike_conv(const uint8_t *x, const float *weights, float *out, size frames, size inputs,
                       size blocks, size block, size height, size width) {
    const size area = height * width, line = (width + 2) * block, run = 3 * block;
    size band = 12288 / line;
    band = band < 2 ? 2 : band > height ? height : band;
#pragma omp parallel
    {
        uint16_t *columns = malloc((inputs * area + 1) * sizeof(uint16_t));
        int32_t *starts = malloc(inputs * (height + 1) * sizeof(int32_t));
        float *sums = malloc(band * line * sizeof(float));
#pragma omp for schedule(static)
        for (size f = 0; f < frames; f++) {
            const uint8_t *frame = x + f * inputs * area;
            for (size i = 0; i < inputs; i++)
                find_spikes(frame + i * area, height, width, columns + i * area,
                            starts + i * (height + 1));
            for (size b = 0; b < blocks; b++)
                for (size top = 0; top < height; top += band) {
                    const size end = top + band < height ? top + band : height;
                    memset(sums, 0, band * line * sizeof(float));
                    for (size i = 0; i < inputs; i++) {
                        const int32_t *from = starts + i * (height + 1);
                        for (size y = top; y < end; y++)
                            for (size k = 0; k < 3; k++) {
                                const size r = y + k - 1;
                                if (r < 0 || r >= height) continue;
                                const float *w = weights + ((b * inputs + i) * 3 + k) * run;
                                for (int32_t e = from[r]; e < from[r + 1]; e++) {
                                    float *to =
                                        sums + (y - top) * line + columns[i * area + e] * block;
#pragma omp simd
                                    for (size j = 0; j < run; j++) to[j] += w[j];
                                }
                            }
                    }
                    float *channel = out + (f * blocks + b) * block * area;
                    for (size y = top; y < end; y++)
                        turn(sums + (y - top) * line + block, width, block, block,
                             channel + y * width, area);
                }
        }
        free(columns), free(starts), free(sums);
    }
}

/* The gradient of the weights, in their layout, from that of the output. */
void avsnn_spike_conv_backward(const float *grad, const uint8_t *x, float *weights, size frames,
                                size inputs, size blocks, size block, size height, size width) {
    const size area = height * width, line = (width + 2) * block, run = 3 * block;
    float *turned = calloc(blocks * height * line, sizeof(float));
    memset(weights, 0, blocks * inputs * 3 * run * sizeof(float));
#pragma omp parallel
    {
        uint16_t *columns = malloc((area + 1) * sizeof(uint16_t));
        int32_t *starts = malloc((height + 1) * sizeof(int32_t));
        for (size f = 0; f < frames; f++) {
            /* channels innermost, between two columns of zeros */
#pragma omp for schedule(static)
            for (size row = 0; row < blocks * height; row++) {
                const size b = row / height, y = row % height;
                const float *channel = grad + (f * blocks + b) * block * area + y * width;
                turn(channel, block, width, area, turned + row * line + block, block);
            }
#pragma omp for schedule(static)
            for (size i = 0; i < inputs; i++) {
                const uint8_t *plane = x + (f * inputs + i) * area;
                find_spikes(plane, height, width, columns, starts);
                if (!starts[height]) continue;
                for (size b = 0; b < blocks; b++)
                    for (size y = 0; y < height; y++)
                        for (size k = 0; k < 3; k++) {
                            const size r = y + k - 1;
                            if (r < 0 || r >= height) continue;
                            float *w = weights + ((b * inputs + i) * 3 + k) * run;
                            for (int32_t e = starts[r]; e < starts[r + 1]; e++) {
                                const float *from =
                                    turned + (b * height + y) * line + columns[e] * block;
#pragma omp simd
                                for (size j = 0; j < run; j++) w[j] += from[j];
                            }
                        }
            }
        }
        free(columns), free(starts);
    }
    free(turned);
}

/* 1x1: weights [blocks, inputs, BLOCK]. The sums of a block stay in registers. */

/* Adds to each of BLOCK sums the row of each event, a channel or place as it may be. */
#define ADD_ROWS(sums, rows, between, events, count)                                   \
    for (int32_t e = 0; e < (count); e++) {                                            \
        const Lanes *row = (const Lanes *)((rows) + (events)[e] * (between));          \
        _Pragma("GCC unroll 8") for (int j = 0; j < BLOCK / 8; j++)(sums)[j] += row[j];    \
    }

/* x [frames, inputs, places] to out [frames, blocks * BLOCK, places]; bias [blocks * BLOCK] or NULL. */
void avsnn_spike_linear(const uint8_t *x, const float *weights, const float *bias, float *out,
                        size frames, size inputs, size blocks, size places) {
#pragma omp parallel
    {
        /* for each place the channels that fire there, each as often as it does */
        uint16_t *events = malloc(places * MOST * inputs * sizeof(uint16_t));
        int32_t *counts = malloc(places * sizeof(int32_t));
        float *sums = malloc(places * BLOCK * sizeof(float));
#pragma omp for schedule(static)
        for (size f = 0; f < frames; f++) {
            memset(counts, 0, places * sizeof(int32_t));
            for (size i = 0; i < inputs; i++) {
                const uint8_t *in = x + (f * inputs + i) * places;
                FOR_EACH_EVENT(in, places, p, events[p * MOST * inputs + counts[p]++] = (uint16_t)i)
            }
            for (size b = 0; b < blocks; b++) {
                const float *rows = weights + b * inputs * BLOCK;
                for (size p = 0; p < places; p++) {
                    Lanes sum[BLOCK / 8] = {0};
                    if (bias) memcpy(sum, bias + b * BLOCK, sizeof(sum));
                    ADD_ROWS(sum, rows, BLOCK, events + p * MOST * inputs, counts[p])
                    memcpy(sums + p * BLOCK, sum, sizeof(sum));
                }
                float *channel = out + (f * blocks + b) * BLOCK * places;
                turn(sums, places, BLOCK, BLOCK, channel, places);
            }
        }
        free(events), free(counts), free(sums);
    }
}

/* The gradient of the weights, in their layout, from that of the output. */
void avsnn_spike_linear_backward(const float *grad, const uint8_t *x, float *weights, size frames,
                                 size inputs, size blocks, size places) {
    const size outputs = blocks * BLOCK;
    float *turned = malloc(places * outputs * sizeof(float));
    memset(weights, 0, inputs * outputs * sizeof(float));
#pragma omp parallel
    {
        uint16_t *events = malloc(places * MOST * sizeof(uint16_t));
        for (size f = 0; f < frames; f++) {
#pragma omp for schedule(static)
            for (size b = 0; b < blocks; b++) {
                const float *channel = grad + (f * blocks + b) * BLOCK * places;
                turn(channel, BLOCK, places, places, turned + b * places * BLOCK, BLOCK);
            }
#pragma omp for schedule(static)
            for (size i = 0; i < inputs; i++) {
                const uint8_t *in = x + (f * inputs + i) * places;
                int32_t count = 0;
                FOR_EACH_EVENT(in, places, p, events[count++] = (uint16_t)p)
                if (!count) continue;
                for (size b = 0; b < blocks; b++) {
                    float *row = weights + (b * inputs + i) * BLOCK;
                    Lanes sum[BLOCK / 8];
                    memcpy(sum, row, sizeof(sum));
                    ADD_ROWS(sum, turned + b * places * BLOCK, BLOCK, events, count)
                    memcpy(row, sum, sizeof(sum));
                }
            }
        }
        free(events);
    }
    free(turned);
}
