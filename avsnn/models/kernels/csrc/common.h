/* Types and arithmetic that all kernels share. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int64_t size;

/* A value in bfloat16: the upper half of a float. */
typedef uint16_t Bfloat16;

static inline float widen(Bfloat16 value) {
    union { uint32_t bits; float value; } wide = {(uint32_t)value << 16};
    return wide.value;
}

/* Round to the nearest value; where two values are equally near, to the one whose last bit is 0. */
static inline Bfloat16 narrow(float value) {
    union { float value; uint32_t bits; } wide = {value};
    const uint32_t rounded = wide.bits + 0x7fff + (wide.bits >> 16 & 1);
    return value == value ? (Bfloat16)(rounded >> 16) : 0x7fc0;
}

/* A layer of neurons. A current is [frames, channels, height * width], contiguous. frames is
   steps * batch, or batch for a constant current, which is the input of every step. rate is
   1 / tau. */
typedef struct {
    size steps, batch, channels, height, width, constant;
    float rate, threshold, slope;
} Layer;

/* Number of neurons that one thread carries through all steps together: their membrane potentials
   stay in registers or in the first cache, so memory reads a current once and writes spikes once.
   */
#define BLOCK 64

/* Membrane potential after one step, before the neuron fires. */
static inline float charge(float current, float membrane, float rate) {
    return membrane + (current - membrane) * rate;
}

/* a * b + c for results that need not be rounded as the reference rounds them. */
static inline float multiply_add(float a, float b, float c) {
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

/* 2^x for x <= 0; below -125 the result is 2^-125. */
static inline float power_of_two(float x) {
    x = x < -125.0f ? -125.0f : x;
    union { float value; int32_t bits; } whole = {x + 12582912.0f}, power;
    const float f = x - (whole.value - 12582912.0f), f2 = f * f;
    const float low = multiply_add(f, 6.931472028550421e-1f, 1.0f);
    const float middle = multiply_add(f, 5.550332471162809e-2f, 2.402264791363012e-1f);
    const float high = multiply_add(f, 1.339887440266574e-3f, 9.618437357674640e-3f);
    power.value = multiply_add(
        multiply_add(multiply_add(1.535336188319500e-4f, f2, high), f2, middle), f2, low);
    /* The lowest bits of `whole` hold the whole part of x, which is the exponent. */
    power.bits += (int32_t)((uint32_t)whole.bits << 23);
    return power.value;
}

/* slope * sig(slope * u) * (1 - sig(slope * u)) * rate with u = potential - threshold. The function
   is even in u, so it is computed from |u|. */
static inline float derivative(float potential, Layer layer) {
    const float e =
        power_of_two(-1.44269504f * layer.slope * fabsf(potential - layer.threshold));
    return layer.slope * layer.rate * e / ((1.0f + e) * (1.0f + e));
}

/* Sum of BLOCK values; overwrites the values. */
static float add_lanes(float *lanes) {
    for (int half = BLOCK / 2; half; half /= 2)
        for (int j = 0; j < half; j++) lanes[j] += lanes[half + j];
    return lanes[0];
}

/* Add pairs of sums of planes to pairs of sums of channels, in the order of the planes. */
static void sum_planes(const double *partial, size planes, size channels, double *sums) {
    for (size c = 0; c < channels; c++) {
        sums[2 * c] = sums[2 * c + 1] = 0;
        for (size p = c; p < planes; p += channels) {
            sums[2 * c] += partial[2 * p];
            sums[2 * c + 1] += partial[2 * p + 1];
        }
    }
}
