/* Neurons without pooling. kernels.c includes this file once for each type. */

/* One step of n neurons; `membrane` holds their potentials from step to step. Returns the number of
   spikes. */
static inline size NAME(fire_step)(const VALUE *restrict in, float a, float b,
                                   float *restrict membrane, VALUE *restrict spikes, size n,
                                   Layer layer) {
    int32_t fired = 0;
    /* Without simdlen, gcc computes 32 neurons together in bfloat16, and one by one what is left:
       all neurons of a row of 16. */
#pragma omp simd simdlen(16) reduction(+ : fired)
    for (size j = 0; j < n; j++) {
        float h = charge(WIDE(in[j]) * a + b, membrane[j], layer.rate);
        int fires = h >= layer.threshold;
        spikes[j] = fires ? ONE : 0;
        membrane[j] = fires ? 0.0f : h;
        fired += fires;
    }
    return fired;
}

/* Spikes [steps, batch, channels, area] of the current x * scale + shift. If scale is NULL, the
   current is x. Returns the number of spikes. */
size NAME(avsnn_fire)(const VALUE *x, const float *scale, const float *shift, VALUE *spikes,
                      Layer L) {
    const size area = L.height * L.width, planes = L.batch * L.channels, step = planes * area;
    const size between = L.constant ? 0 : step;
    size fired = 0;
#pragma omp parallel for reduction(+ : fired) schedule(static)
    for (size p = 0; p < planes; p++) {
        const float a = scale ? scale[p % L.channels] : 1.0f;
        const float b = scale ? shift[p % L.channels] : 0.0f;
        for (size i = 0; i < area; i += BLOCK) {
            const size n = area - i < BLOCK ? area - i : BLOCK;
            float membrane[BLOCK] = {0};
            for (size t = 0; t < L.steps; t++)
                fired += NAME(fire_step)(x + t * between + p * area + i, a, b, membrane,
                                         spikes + t * step + p * area + i, n, L);
        }
    }
    return fired;
}

/* One step of the gradients of n neurons. Each lane adds its gradient to `sum`, and its gradient
   times (x - middle) to `product`. If `total` is NULL, the gradient is stored in `out`, otherwise
   added to `total`. */
static inline void NAME(fire_backward_step)(const VALUE *restrict in, const VALUE *restrict grad,
                                            float a, float b, float middle,
                                            float *restrict membrane, VALUE *restrict out,
                                            float *restrict total, float *restrict sum,
                                            float *restrict product, size n, Layer layer) {
#pragma omp simd
    for (size j = 0; j < n; j++) {
        const float h = charge(WIDE(in[j]) * a + b, membrane[j], layer.rate);
        const float d = WIDE(grad[j]) * derivative(h, layer);
        membrane[j] = h >= layer.threshold ? 0.0f : h;
        if (total)
            total[j] += d;
        else
            out[j] = NARROW(d);
        sum[j] += d;
        product[j] = multiply_add(d, WIDE(in[j]) - middle, product[j]);
    }
}

/* Gradients of the current, [frames, channels, area], from the gradients of the spikes. sums
   [channels, 2] gets, for each channel, the sum of the gradients and the sum of the gradients times
   (x - centre). If centre is NULL, centre is 0. */
void NAME(avsnn_fire_backward)(const VALUE *grad, const VALUE *x, const float *scale,
                               const float *shift, const float *centre, VALUE *out, double *sums,
                               Layer L) {
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
                const VALUE *in = x + t * between + p * area + i;
                const VALUE *g = grad + t * step + p * area + i;
                VALUE *o = out + t * between + p * area + i;
                if (L.constant)
                    NAME(fire_backward_step)(in, g, a, b, middle, membrane, NULL, total, sum,
                                             product, n, L);
                else
                    NAME(fire_backward_step)(in, g, a, b, middle, membrane, o, NULL, sum, product,
                                             n, L);
            }
            for (size j = 0; j < n && L.constant; j++) out[p * area + i + j] = NARROW(total[j]);
        }
        partial[2 * p] = add_lanes(sum);
        partial[2 * p + 1] = add_lanes(product);
    }
    sum_planes(partial, planes, L.channels, sums);
    free(partial);
}
