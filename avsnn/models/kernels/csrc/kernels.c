/* Kernels for CPUs; cpu.py compiles this file and calls its functions. This file includes all other
   files of the folder, so that the compiler sees one translation unit and can inline across files.

   Products and sums are rounded one by one (-ffp-contract=off), in the order in which reference.py
   writes them, so the spikes are equal to those of the reference to the bit. One thread computes
   one plane (one channel of one clip), and sums over planes are added in the order of the planes,
   so the result does not depend on the number of threads. */

#include "common.h"

#include "batch_norm.c"
#include "neurons.c"
#include "pooled_neurons.c"
#include "spike_conv.c"
