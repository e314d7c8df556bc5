/* Convolutions of spikes, one byte per value. Every spike adds its weights to the outputs that see
   the spike, and a value without a spike costs nothing. The channels of the output are cut into
   blocks of the same size; the channels of a block lie innermost in weights and sums. The numbers of
   columns, channels and places have 32 bits; cpu.py calls these functions for frames of fewer than
   2^31 / MOST values only. */

/* Eight values that one instruction adds. */
typedef float Lanes __attribute__((vector_size(32), aligned(4), may_alias));
typedef int32_t Order __attribute__((vector_size(32)));

/* Pick eight of the sixteen values of `a` and `b` by their numbers. GCC knows the first builtin only
   since version 12, and clang does not know the second builtin. */
#ifdef __clang__
#define MIX(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIX(a, b, ...) __builtin_shuffle(a, b, (Order){__VA_ARGS__})
#endif

/* Transpose `from` [rows, columns] to `to` [columns, rows], 8 x 8 values at a time. `between` is
   the distance from one row of `from` to the next, `apart` from one row of `to` to the next. */
static void transpose(const float *from, size rows, size columns, size between, float *to,
                      size apart) {
    const size r8 = rows / 8 * 8, c8 = columns / 8 * 8;
#define IN(k) (*(const Lanes *)(from + (r + (k)) * between + c))
#define OUT(k) (*(Lanes *)(to + (c + (k)) * apart + r))
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
    for (size r = 0; r < rows; r++)
        for (size c = r < r8 ? c8 : 0; c < columns; c++) to[c * apart + r] = from[r * between + c];
}

/* Largest value in the input of a 1x1 convolution: sums of up to three spikes. */
#define MOST 3
/* Number of values that one thread packs at a time. */
#define CHUNK 1024

/* Pack n values into bytes. Returns the number of values that are not zero, or -1 if some value is
   not a whole number from 0 to `most`. */
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

/* Run `what` for every byte that is not zero, in order; a byte of value n runs `what` n times. */
#define FOR_EACH_EVENT(bytes, count, place, what)                                              \
    for (size word = 0; word < (count); word += 8) {                                           \
        uint64_t left = 0;                                                                     \
        memcpy(&left, (bytes) + word, (count) - word < 8 ? (count) - word : 8);                \
        for (size place = word; left; place++, left >>= 8)                                     \
            for (uint8_t n = (uint8_t)left; n; n--) what;                                      \
    }

/* 3x3 with padding 1: weights [blocks, inputs, 3, 3, block]. The columns of the weights are
   reversed, so what one spike adds to one row of outputs is one run of 3 * block sums. */

/* List the columns of the spikes of a plane, row by row; starts[r] is the start of row r in the
   list. */
static void find_spikes(const uint8_t *plane, size height, size width, int32_t *columns,
                        int32_t *starts) {
    int32_t n = 0;
    for (size r = 0; r < height; r++) {
        starts[r] = n;
        for (size c = 0; c < width; c++) {
            columns[n] = (int32_t)c;
            n += plane[r * width + c] != 0;
        }
    }
    starts[height] = n;
}

/* Convolve x [frames, inputs, height, width] to out [frames, blocks * block, height, width]. */
void avsnn_spike_conv(const uint8_t *x, const float *weights, float *out, size frames, size inputs,
                       size blocks, size block, size height, size width) {
    const size area = height * width, line = (width + 2) * block, run = 3 * block;
    /* Rows of outputs that are computed together: their sums stay in the cache (48 KiB). */
    size band = 12288 / line;
    band = band < 2 ? 2 : band > height ? height : band;
#pragma omp parallel
    {
        int32_t *columns = malloc((inputs * area + 1) * sizeof(int32_t));
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
                        transpose(sums + (y - top) * line + block, width, block, block,
                             channel + y * width, area);
                }
        }
        free(columns), free(starts), free(sums);
    }
}

/* Number of values of the gradients that are transposed together (1 MiB). All threads wait for each
   other after every group of frames, which takes long where other work keeps a core busy. */
#define TURNED (1 << 18)

/* Return how many of the frames, of n values each, are a group. */
static size group_of(size frames, size n) {
    const size group = TURNED / n < 1 ? 1 : TURNED / n;
    return group < frames ? group : frames;
}

/* Gradient of the weights, in the layout of the weights, from the gradient of the output. */
void avsnn_spike_conv_backward(const float *grad, const uint8_t *x, float *weights, size frames,
                                size inputs, size blocks, size block, size height, size width) {
    const size area = height * width, line = (width + 2) * block, run = 3 * block;
    const size frame = blocks * height * line, group = group_of(frames, frame);
    float *turned = calloc(group * frame, sizeof(float));
    memset(weights, 0, blocks * inputs * 3 * run * sizeof(float));
#pragma omp parallel
    {
        int32_t *columns = malloc((area + 1) * sizeof(int32_t));
        int32_t *starts = malloc((height + 1) * sizeof(int32_t));
        for (size first = 0; first < frames; first += group) {
            const size count = frames - first < group ? frames - first : group;
            /* Transpose the gradient: channels innermost, with a column of zeros on both sides. */
#pragma omp for schedule(static)
            for (size row = 0; row < count * blocks * height; row++) {
                const size b = row / height, y = row % height;
                const float *channel = grad + (first * blocks + b) * block * area + y * width;
                transpose(channel, block, width, area, turned + row * line + block, block);
            }
#pragma omp for schedule(static)
            for (size i = 0; i < inputs; i++)
                for (size f = 0; f < count; f++) {
                    const uint8_t *plane = x + ((first + f) * inputs + i) * area;
                    find_spikes(plane, height, width, columns, starts);
                    if (!starts[height]) continue;
                    for (size b = 0; b < blocks; b++)
                        for (size y = 0; y < height; y++)
                            for (size k = 0; k < 3; k++) {
                                const size r = y + k - 1;
                                if (r < 0 || r >= height) continue;
                                float *w = weights + ((b * inputs + i) * 3 + k) * run;
                                const float *rows = turned + f * frame + (b * height + y) * line;
                                for (int32_t e = starts[r]; e < starts[r + 1]; e++) {
                                    const float *from = rows + columns[e] * block;
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

/* Add the row of each event to BLOCK sums. An event is the number of a row: a channel in the
   forward pass, a place in the backward pass. */
#define ADD_ROWS(sums, rows, between, events, count)                                   \
    for (int32_t e = 0; e < (count); e++) {                                            \
        const Lanes *row = (const Lanes *)((rows) + (events)[e] * (between));          \
        _Pragma("GCC unroll 8") for (int j = 0; j < BLOCK / 8; j++)(sums)[j] += row[j];    \
    }

/* Convolve x [frames, inputs, places] to out [frames, blocks * BLOCK, places]. bias is
   [blocks * BLOCK] or NULL. */
void avsnn_spike_linear(const uint8_t *x, const float *weights, const float *bias, float *out,
                        size frames, size inputs, size blocks, size places) {
#pragma omp parallel
    {
        /* For each place, the channels that fire there; a channel with value n is listed n times.
           */
        int32_t *events = malloc(places * MOST * inputs * sizeof(int32_t));
        int32_t *counts = malloc(places * sizeof(int32_t));
        float *sums = malloc(places * BLOCK * sizeof(float));
#pragma omp for schedule(static)
        for (size f = 0; f < frames; f++) {
            memset(counts, 0, places * sizeof(int32_t));
            for (size i = 0; i < inputs; i++) {
                const uint8_t *in = x + (f * inputs + i) * places;
                FOR_EACH_EVENT(in, places, p, events[p * MOST * inputs + counts[p]++] = (int32_t)i)
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
                transpose(sums, places, BLOCK, BLOCK, channel, places);
            }
        }
        free(events), free(counts), free(sums);
    }
}

/* Gradient of the weights, in the layout of the weights, from the gradient of the output. */
void avsnn_spike_linear_backward(const float *grad, const uint8_t *x, float *weights, size frames,
                                 size inputs, size blocks, size places) {
    const size outputs = blocks * BLOCK, frame = places * outputs;
    const size group = group_of(frames, frame);
    float *turned = malloc(group * frame * sizeof(float));
    memset(weights, 0, inputs * outputs * sizeof(float));
#pragma omp parallel
    {
        int32_t *events = malloc(places * MOST * sizeof(int32_t));
        for (size first = 0; first < frames; first += group) {
            const size count = frames - first < group ? frames - first : group;
#pragma omp for schedule(static)
            for (size b = 0; b < count * blocks; b++) {
                const float *channel = grad + (first * blocks + b) * BLOCK * places;
                transpose(channel, BLOCK, places, places, turned + b * places * BLOCK, BLOCK);
            }
#pragma omp for schedule(static)
            for (size i = 0; i < inputs; i++)
                for (size f = 0; f < count; f++) {
                    const uint8_t *in = x + ((first + f) * inputs + i) * places;
                    int32_t fired = 0;
                    FOR_EACH_EVENT(in, places, p, events[fired++] = (int32_t)p)
                    if (!fired) continue;
                    for (size b = 0; b < blocks; b++) {
                        float *row = weights + (b * inputs + i) * BLOCK;
                        const float *rows = turned + (f * blocks + b) * places * BLOCK;
                        Lanes sum[BLOCK / 8];
                        memcpy(sum, row, sizeof(sum));
                        ADD_ROWS(sum, rows, BLOCK, events, fired)
                        memcpy(row, sum, sizeof(sum));
                    }
                }
        }
        free(events);
    }
    free(turned);
}
