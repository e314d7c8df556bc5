/* Kernels for CPUs; cpu.py compiles this file and calls its functions. This file includes all other
   files of the folder, so that the compiler sees one translation unit and can inline across files.

   Products and sums are rounded one by one (-ffp-contract=off), in the order in which reference.py
   writes them, so the spikes are equal to those of the reference to the bit. One thread computes
   one plane (one channel of one clip), and sums over planes are added in the order of the planes,
   so the result does not depend on the number of threads. */

#include "common.h"
#include "pooling.h"

/* Every function of these three files twice: for values in memory of float32 and, with a name that
   ends in _bf16, of bfloat16. The arithmetic is in float32 both times. WIDE reads a value, NARROW
   gives the value to store, and ONE is a spike. */
#define NAME(name) name
#define VALUE float
#define ONE 1.0f
#define WIDE(value) (value)
#define NARROW(value) (value)
#include "batch_norm.c"
#include "neurons.c"
#include "pooled_neurons.c"
#undef NAME
#undef VALUE
#undef ONE
#undef WIDE
#undef NARROW

#define NAME(name) name##_bf16
#define VALUE Bfloat16
#define ONE 0x3f80
#define WIDE widen
#define NARROW narrow
#include "batch_norm.c"
#include "neurons.c"
#include "pooled_neurons.c"

#include "spike_conv.c"
