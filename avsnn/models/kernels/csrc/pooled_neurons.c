/* Neurons and 3x3 max pooling with stride 2 and padding 1. The gradient of a window goes to the
   first spike of the window in reading order, or to the first place of the window if no place
   fires, as in torch. kernels.c includes this file once for each type. */

/* Pooled spikes [steps, batch, channels, (height + 1) / 2, (width + 1) / 2]. Only three rows of
   spikes per step are in memory at a time. Returns the number of spikes before pooling. */
size NAME(avsnn_fire_pool)(const VALUE *x, const float *scale, const float *shift, VALUE *pooled,
                           Layer L) {
    size fired = 0;
    const size planes = L.batch * L.channels, area = L.height * L.width;
    const size high = (L.height + 1) / 2, wide = (L.width + 1) / 2, between = planes * area;
    /* One place of padding on the left of a row, and up to two places on the right. */
    const size row = 2 * wide + 2;
#pragma omp parallel reduction(+ : fired)
    {
        VALUE *rows = calloc(L.steps * 3 * row, sizeof(VALUE));
        VALUE *tallest = calloc(row, sizeof(VALUE));
        float *membrane = calloc(L.width, sizeof(float));
#pragma omp for schedule(static)
        for (size p = 0; p < planes; p++) {
            const float a = scale ? scale[p % L.channels] : 1.0f;
            const float b = scale ? shift[p % L.channels] : 0.0f;
            memset(rows, 0, L.steps * 3 * row * sizeof(VALUE));
            for (size r = 0; r < 2 * high; r++) {
                memset(membrane, 0, L.width * sizeof(float));
                for (size t = 0; t < L.steps; t++) {
                    VALUE *s = rows + (t * 3 + r % 3) * row + 1;
                    if (r < L.height)
                        fired += NAME(fire_step)(
                            x + (L.constant ? 0 : t * between) + p * area + r * L.width, a, b,
                            membrane, s, L.width, L);
                    else
                        memset(s, 0, L.width * sizeof(VALUE));
                    if (r % 2 == 0) continue;
                    /* Bits of 0 and 1 compare as 0 and 1 do, in bfloat16 too. */
                    const VALUE *r0 = rows + t * 3 * row, *r1 = r0 + row, *r2 = r1 + row;
#pragma omp simd
                    for (size j = 0; j < row; j++) {
                        VALUE m = r0[j] > r1[j] ? r0[j] : r1[j];
                        tallest[j] = m > r2[j] ? m : r2[j];
                    }
                    VALUE *o = pooled + ((t * planes + p) * high + r / 2) * wide;
                    /* Pairs first: the compiler vectorises a loop that reads every value once. */
#pragma omp simd
                    for (size j = 0; j < 2 * wide; j++)
                        tallest[j] = tallest[j] > tallest[j + 1] ? tallest[j] : tallest[j + 1];
#pragma omp simd
                    for (size j = 0; j < wide; j++)
                        o[j] = tallest[2 * j] > tallest[2 * j + 1] ? tallest[2 * j]
                                                                   : tallest[2 * j + 1];
                }
            }
        }
        free(rows), free(tallest), free(membrane);
    }
    return fired;
}

/* Potentials of row r at all steps, before the neurons fire. `x` points to the row at step 0. A
   row below the image gets potentials that never fire. */
static inline void NAME(charge_row)(const VALUE *x, size between, float a, float b, size r,
                                    size wide, Scratch S, Layer L) {
    float *membrane = S.membrane, *current = S.current;
    const size half = S.half;
    memset(membrane, 0, 2 * half * sizeof(float));
    for (size t = 0; t < L.steps; t++) {
        Row h = row_of(S.potentials, t, r, half);
        if (r >= L.height) {
            for (size j = 0; j < wide; j++) h.even[j] = h.odd[j] = -INFINITY;
            continue;
        }
        if (t == 0 || !L.constant) {
            const VALUE *in = x + t * between;
            const size odds = L.width / 2;
#pragma omp simd
            for (size j = 0; j < odds; j++) {
                current[j] = WIDE(in[2 * j]) * a + b;
                current[half + j] = WIDE(in[2 * j + 1]) * a + b;
            }
            if (L.width % 2) current[odds] = WIDE(in[2 * odds]) * a + b;
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

/* The winner of each window of one row of windows: its place, 0 to 8, and its gradient, which is
   the gradient of the window times the derivative at the potential of the winner. */
static void NAME(find_winners)(Row top, Row middle, Row bottom, int first_row, size wide,
                               const VALUE *grad, int32_t *restrict place, float *restrict share,
                               Layer layer) {
    const int32_t start = first_row ? 3 : 0;
    const float *before = (first_row ? middle : top).odd - 1, *t0 = top.odd - 1, *t1 = top.even;
    const float *t2 = top.odd, *m0 = middle.odd - 1, *m1 = middle.even, *m2 = middle.odd;
    const float *b0 = bottom.odd - 1, *b1 = bottom.even, *b2 = bottom.odd;
    const float level = layer.threshold;
#define TAKE(potentials, number)    \
    fires = potentials[j] >= level; \
    which = fires ? (number) : which; \
    potential = fires ? potentials[j] : potential;
#pragma omp simd
    for (size j = 0; j < wide; j++) {
        int32_t which = start, fires;
        float potential = before[j];
        TAKE(b2, 8) TAKE(b1, 7) TAKE(b0, 6) TAKE(m2, 5) TAKE(m1, 4) TAKE(m0, 3)
        TAKE(t2, 2) TAKE(t1, 1) TAKE(t0, 0)
        place[j] = which;
        share[j] = WIDE(grad[j]) * derivative(potential, layer);
    }
#undef TAKE
    /* The left column of the first window lies outside the image, so its first place is in the
       middle column. */
    if (place[0] == start) {
        place[0] = start + 1;
        share[0] = WIDE(grad[0]) * derivative((first_row ? middle : top).even[0], layer);
    }
}

/* Write one row of gradients to `out`, add them to `sum`, and add them times (x - middle) to
   `product`. */
static inline void NAME(write_row)(Row d, const VALUE *x, VALUE *out, float middle, size wide,
                                   float *line, float *sum, float *product, Layer L) {
#pragma omp simd
    for (size j = 0; j < wide; j++) {
        line[2 * j] = d.even[j];
        line[2 * j + 1] = d.odd[j];
    }
    for (size from = 0; from < L.width; from += BLOCK) {
        const size n = L.width - from < BLOCK ? L.width - from : BLOCK;
        const VALUE *in = x + from;
        const float *sent = line + from;
        VALUE *o = out + from;
#pragma omp simd
        for (size j = 0; j < n; j++) {
            o[j] = NARROW(sent[j]);
            sum[j] += sent[j];
            product[j] = multiply_add(sent[j], WIDE(in[j]) - middle, product[j]);
        }
    }
}

/* Gradients of one plane. grad, x and out point to the plane at step 0; `pooled_step` is the
   distance from one step of grad to the next, and `between` the distance from one step of x and out
   to the next. sum and product have BLOCK lanes, as in fire_backward_step. */
static void NAME(fire_pool_backward_plane)(const VALUE *grad, size pooled_step, const VALUE *x,
                                           VALUE *out, size between, float a, float b,
                                           float middle, float *sum, float *product, Scratch S,
                                           Layer L) {
    const size high = (L.height + 1) / 2, wide = (L.width + 1) / 2, half = S.half;
    const size grads = L.constant ? 1 : L.steps;
    for (size i = 0; i < L.steps * 3 * 2 * half; i++) S.potentials[i] = -INFINITY;
    memset(S.gradients, 0, grads * 3 * 2 * half * sizeof(float));
    for (size i = 0; i < high; i++) {
        for (size r = 2 * i; r < 2 * i + 2; r++)
            NAME(charge_row)(x + r * L.width, between, a, b, r, wide, S, L);
        for (size t = 0; t < L.steps; t++) {
            NAME(find_winners)(row_of(S.potentials, t, 2 * i - 1, half),
                               row_of(S.potentials, t, 2 * i, half),
                               row_of(S.potentials, t, 2 * i + 1, half), i == 0, wide,
                               grad + t * pooled_step + i * wide, S.place, S.share, L);
            /* No window follows the last window, so no place may match. */
            S.share[wide] = 0.0f;
            S.place[wide] = 9;
            const size to = L.constant ? 0 : t;
            for (int k = 0; k < 3; k++) {
                Row d = row_of(S.gradients, to, 2 * i - 1 + k, half);
                add_to_winners(S.place, S.share, 3 * k, wide, d.even, d.odd);
            }
        }
        /* The next windows add to the bottom row only, so the two rows above it are complete. After
           the last windows, all three rows are complete. */
        const size last = i + 1 == high ? 2 * i + 1 : 2 * i;
        for (size r = i ? 2 * i - 1 : 0; r <= last; r++)
            for (size t = 0; t < grads; t++) {
                Row d = row_of(S.gradients, t, r, half);
                const size at = t * between + r * L.width;
                if (r < L.height)
                    NAME(write_row)(d, x + at, out + at, middle, wide, S.line, sum, product, L);
                memset(d.even, 0, wide * sizeof(float));
                memset(d.odd, 0, wide * sizeof(float));
            }
    }
}

/* Gradients of the current from the gradients of the pooled spikes; the arguments are those of
   avsnn_fire_backward. */
void NAME(avsnn_fire_pool_backward)(const VALUE *grad, const VALUE *x, const float *scale,
                                    const float *shift, const float *centre, VALUE *out,
                                    double *sums, Layer L) {
    const size planes = L.batch * L.channels, area = L.height * L.width;
    const size high = (L.height + 1) / 2, wide = (L.width + 1) / 2, half = wide + 2;
    const size grads = L.constant ? 1 : L.steps;
    double *partial = calloc(2 * planes, sizeof(double));
#pragma omp parallel
    {
        Scratch S = {
            .half = half,
            .potentials = malloc(L.steps * 3 * 2 * half * sizeof(float)),
            .gradients = malloc(grads * 3 * 2 * half * sizeof(float)),
            .membrane = calloc(2 * half, sizeof(float)),
            .current = calloc(2 * half, sizeof(float)),
            .share = malloc(half * sizeof(float)),
            .place = malloc(half * sizeof(int32_t)),
            .line = malloc((2 * wide + 2) * sizeof(float)),
        };
#pragma omp for schedule(static)
        for (size p = 0; p < planes; p++) {
            const float a = scale ? scale[p % L.channels] : 1.0f;
            const float b = scale ? shift[p % L.channels] : 0.0f;
            const float middle = centre ? centre[p % L.channels] : 0.0f;
            float sum[BLOCK] = {0}, product[BLOCK] = {0};
            NAME(fire_pool_backward_plane)(grad + p * high * wide, planes * high * wide,
                                           x + p * area, out + p * area,
                                           L.constant ? 0 : planes * area, a, b, middle, sum,
                                           product, S, L);
            partial[2 * p] = add_lanes(sum);
            partial[2 * p + 1] = add_lanes(product);
        }
        free(S.potentials), free(S.gradients), free(S.membrane), free(S.current);
        free(S.share), free(S.place), free(S.line);
    }
    sum_planes(partial, planes, L.channels, sums);
    free(partial);
}
