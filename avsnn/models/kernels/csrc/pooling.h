/* Rows of potentials and gradients under 3x3 max pooling with stride 2 and padding 1. */

/* One row of values, columns 0, 2, 4, ... apart from columns 1, 3, 5, ...; in a row of potentials,
   a value that never fires stands before the first odd column and behind the last odd column. */
typedef struct {
    float *even, *odd;
} Row;

/* Memory of one thread. `half` values hold the even or the odd columns of a row. */
typedef struct {
    size half;
    float *potentials, *gradients; /* for each step, the last three rows */
    float *membrane, *current;     /* one row */
    float *share;                  /* gradient that the winner of each window of a row gets */
    int32_t *place;                /* place of that winner, 0 to 8 */
    float *line;                   /* one row, even and odd columns in turn */
} Scratch;

/* Row r of step t in `rows`, which holds the last three rows of each step. */
static inline Row row_of(float *rows, size t, size r, size half) {
    float *even = rows + (t * 3 + (r + 3) % 3) * 2 * half;
    return (Row){even, even + half + 1};
}

/* Add the gradients of one row of windows to one row of values, whose places in the windows are k,
   k + 1 and k + 2. */
static inline void add_to_winners(const int32_t *restrict place, const float *restrict share,
                                  int32_t k, size wide, float *restrict even, float *restrict odd) {
#pragma omp simd
    for (size j = 0; j < wide; j++) {
        const float own = share[j], next = share[j + 1];
        const int32_t winner = place[j], after = place[j + 1];
        even[j] += winner == k + 1 ? own : 0.0f;
        odd[j] += (winner == k + 2 ? own : 0.0f) + (after == k ? next : 0.0f);
    }
}
