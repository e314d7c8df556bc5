/* Statistics of batch norm, and its gradient. kernels.c includes this file once for each type. */

/* Mean and biased variance of each channel, from sums about the first value of the channel. The
   sums are in double precision: a mean that is wrong in its last digit moves some potentials across
   the threshold. */
void NAME(avsnn_moments)(const VALUE *x, size frames, size channels, size area, double *mean,
                         double *var) {
#pragma omp parallel for schedule(static)
    for (size c = 0; c < channels; c++) {
        const float centre = WIDE(x[c * area]);
        double sum = 0, square = 0, n = (double)(frames * area);
        for (size f = 0; f < frames; f++) {
            const VALUE *in = x + (f * channels + c) * area;
#pragma omp simd reduction(+ : sum, square)
            for (size j = 0; j < area; j++) {
                double d = (double)(WIDE(in[j]) - centre);
                sum += d;
                square += d * d;
            }
        }
        double variance = (square - sum * sum / n) / n;
        mean[c] = (double)centre + sum / n;
        var[c] = variance > 0 ? variance : 0;
    }
}

/* grad = grad * a + x * b + c for each channel, in place: what batch norm does to a gradient. */
void NAME(avsnn_norm_backward)(VALUE *grad, const VALUE *x, const float *a, const float *b,
                               const float *c, size frames, size channels, size area) {
#pragma omp parallel for schedule(static)
    for (size p = 0; p < frames * channels; p++) {
        const float by = a[p % channels], of = b[p % channels], more = c[p % channels];
        VALUE *g = grad + p * area;
        const VALUE *in = x + p * area;
#pragma omp simd
        for (size j = 0; j < area; j++)
            g[j] = NARROW(WIDE(g[j]) * by + WIDE(in[j]) * of + more);
    }
}
