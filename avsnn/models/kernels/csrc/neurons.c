/* Neurons without pooling. */

/* One step of n neurons; `membrane` holds their potentials from step to step. Returns the number of
   spikes. */
static inline size fire_step(const float *restrict in, float a, float b, float *restrict membrane,
                             float *restrict spikes, size n, Layer layer) {
    int32_t fired = 0;
#pragma omp simd reduction(+ : fired)
    for (size j = 0; j < n; j++) {
        float h = charge(in[j] * a + b, membrane[j], layer.rate);
        int fires = h >= layer.threshold;
        spikes[j] = (float)fires;
        membrane[j] = fires ? 0.0f : h;
        fired += fires;
    }
    return fired;
}

/* Spikes [steps, batch, channels, area] of the current x * scale + shift. If scale is NULL, the
   current is x. Returns the number of spikes. */
size avsnn_fire(const float *x, const float *scale, const float *shift, float *spikes, Layer L) {
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
                fired += fire_step(x + t * between + p * area + i, a, b, membrane,
                                   spikes + t * step + p * area + i, n, L);
        }
    }
    return fired;
}

/* One step of the gradients of n neurons. Each lane adds its gradient to `sum`, and its gradient
   times (x - middle) to `product`. If `adds`, the gradient is added to `out`, otherwise stored. */
static inline void fire_backward_step(const float *restrict in, const float *restrict grad, float a,
                                      float b, float middle, float *restrict membrane,
                                      float *restrict out, float *restrict sum,
                                      float *restrict product, size n, int adds, Layer layer) {
#pragma omp simd
    for (size j = 0; j < n; j++) {
        const float h = charge(in[j] * a + b, membrane[j], layer.rate);
        const float d = grad[j] * derivative(h, layer);
        membrane[j] = h >= layer.threshold ? 0.0f : h;
        out[j] = adds ? out[j] + d : d;
        sum[j] += d;
        product[j] = multiply_add(d, in[j] - middle, product[j]);
    }
}

/* Gradients of the current, [frames, channels, area], from the gradients of the spikes. sums
   [channels, 2] gets, for each channel, the sum of the gradients and the sum of the gradients times
   (x - centre). If centre is NULL, centre is 0. */
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
                    fire_backward_step(in, g, a, b, middle, membrane, total, sum, product, n, 1, L);
                else
                    fire_backward_step(in, g, a, b, middle, membrane, o, sum, product, n, 0, L);
            }
            if (L.constant) memcpy(out + p * area + i, total, n * sizeof(float));
        }
        partial[2 * p] = add_lanes(sum);
        partial[2 * p + 1] = add_lanes(product);
    }
    sum_planes(partial, planes, L.channels, sums);
    free(partial);
}
