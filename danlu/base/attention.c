/* danlu's fused causal attention for CPUs with AVX512-BF16: one head stays in the core's own cache from q, k, v to the
 * result, so neither scores nor weights ever reach memory. (Dao et al. 2022, FlashAttention; here without its GPU.)
 *
 * Every product is C += A B by dot products of bfloat16 pairs: one 32-bit word holds two neighbours along the summed
 * axis. A is read word by word with two free strides (rows, pairs), so a transpose of A costs nothing once its words
 * pair the right neighbours; B is packed as (pairs, columns). Sums and the softmax are float32. A head is computed by
 * one thread in one order: no result depends on the number of threads. Other CPUs get only has_fused_attention() = 0.
 *
 * Shapes: B batch, T tokens, N heads, H head width (a multiple of 32); q, k, v (B, N, T, H), out (B, T, N, H).
 */
#include <stdint.h>
#include <string.h>

typedef int64_t i64;

#if !defined(__AVX512BF16__) || !defined(__AVX512BW__) || !defined(__AVX512DQ__)
i64 has_fused_attention(void) { return 0; }
#else
#include <immintrin.h>
#include <math.h>

i64 has_fused_attention(void) { return 1; }

typedef uint16_t bf16;
typedef uint32_t __attribute__((may_alias)) word;
#define ALWAYS_INLINE static inline __attribute__((always_inline))
enum { QUERIES = 96, KEYS = 320, PANEL = 64, ROWS = 6, SLACK = 32 }; /* rows of a query block, most keys of a chunk, .. */
static const float LOG2E = 1.44269504f;

static inline i64 at_most(i64 a, i64 b) { return a < b ? a : b; }
static inline i64 at_least(i64 a, i64 b) { return a > b ? a : b; }
static inline i64 round_up(i64 n, i64 to) { return (n + to - 1) / to * to; }

/* Keys are taken in chunks of equal size, whole panels each. */
static inline i64 chunk_size(i64 T) {
    i64 n_chunks = (T + KEYS - 1) / KEYS;
    return round_up((T + n_chunks - 1) / n_chunks, PANEL);
}

/* 2^x; relative error below 3e-6; x < -126 counts as -126; a NaN stays a NaN. */
ALWAYS_INLINE __m512 exp2_fast(__m512 x) {
    x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
    __m512 n = _mm512_roundscale_ps(x, 8), f = _mm512_sub_ps(x, n), p = _mm512_set1_ps(1.3333558e-3f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.6181291e-3f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.5504109e-2f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.4022651e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9314718e-1f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f));
    return _mm512_scalef_ps(p, n);
}
ALWAYS_INLINE __m256i narrow(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }
ALWAYS_INLINE __m512 widen(const bf16 *x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)x)), 16));
}
ALWAYS_INLINE __m512i join(__m256i low, __m256i high) { /* words (low[i], high[i]) */
    return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}
ALWAYS_INLINE __mmask16 first_lanes(i64 n) { return (__mmask16)(n <= 0 ? 0 : n >= 16 ? 0xffff : (1 << n) - 1); }

/* c (M rows, N vectors) [+]= a b over `pairs` words; M and N are constants at every call. */
ALWAYS_INLINE void tile(const int M, const int N, const word *a, i64 a_row, i64 a_pair, const word *b, i64 b_pair,
                        float *c, i64 c_row, i64 pairs, int add) {
    __m512 sum[6][4];
    #pragma GCC unroll 6
    for (int m = 0; m < M; m++) {
        #pragma GCC unroll 4
        for (int n = 0; n < N; n++) sum[m][n] = add ? _mm512_loadu_ps(c + m * c_row + n * 16) : _mm512_setzero_ps();
    }
    for (i64 p = 0; p < pairs; p++, a += a_pair, b += b_pair) {
        __m512i right[4];
        #pragma GCC unroll 4
        for (int n = 0; n < N; n++) right[n] = _mm512_loadu_si512(b + n * 16);
        #pragma GCC unroll 6
        for (int m = 0; m < M; m++) {
            __m512i left = _mm512_set1_epi32((int)a[m * a_row]);
            #pragma GCC unroll 4
            for (int n = 0; n < N; n++) sum[m][n] = _mm512_dpbf16_ps(sum[m][n], (__m512bh)left, (__m512bh)right[n]);
        }
    }
    #pragma GCC unroll 6
    for (int m = 0; m < M; m++) {
        #pragma GCC unroll 4
        for (int n = 0; n < N; n++) _mm512_storeu_ps(c + m * c_row + n * 16, sum[m][n]);
    }
}

#define CASE(M, N) case (M) * 8 + (N): tile(M, N, a, a_row, a_pair, b, b_pair, c, c_row, pairs, add); break;
#define CASES(M) CASE(M, 1) CASE(M, 2) CASE(M, 3) CASE(M, 4)
static void any_tile(i64 rows, i64 vectors, const word *a, i64 a_row, i64 a_pair, const word *b, i64 b_pair, float *c,
                     i64 c_row, i64 pairs, int add) {
    switch (rows * 8 + vectors) { CASES(1) CASES(2) CASES(3) CASES(4) CASES(5) CASES(6) }
}

/* 16 rows of 16 words, transposed. */
ALWAYS_INLINE void transpose(__m512i r[16]) {
    const __m512i lane = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    #pragma GCC unroll 4
    for (int s = 1; s < 16; s *= 2) {
        __mmask16 upper = _mm512_test_epi32_mask(lane, _mm512_set1_epi32(s));
        __m512i low = _mm512_mask_add_epi32(lane, upper, lane, _mm512_set1_epi32(16 - s));
        __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(s));
        #pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            if (i & s) continue;
            __m512i a = r[i], b = r[i + s];
            r[i] = _mm512_permutex2var_epi32(a, low, b);
            r[i + s] = _mm512_permutex2var_epi32(a, high, b);
        }
    }
}

/* Rows of x become columns: panels of (H/2 pairs, PANEL rows). Rows past the end are 0. */
static void pack_columns(const bf16 *x, i64 stride, i64 n_rows, i64 H, word *y) {
    for (i64 r = 0; r < n_rows; r += 16) {
        word *panel = y + r / PANEL * (H / 2) * PANEL + r % PANEL;
        for (i64 p = 0; p < H / 2; p += 16) {
            __m512i lines[16];
            #pragma GCC unroll 16
            for (int i = 0; i < 16; i++)
                lines[i] = r + i < n_rows ? _mm512_loadu_si512(x + (r + i) * stride + 2 * p) : _mm512_setzero_si512();
            transpose(lines);
            #pragma GCC unroll 16
            for (int i = 0; i < 16; i++) _mm512_storeu_si512(panel + (p + i) * PANEL, lines[i]);
        }
    }
}

/* Neighbouring rows of x become the two halves of words: (n_rows/2 pairs, H). A missing last row is 0. */
static void pack_rows(const bf16 *x, i64 stride, i64 n_rows, i64 H, word *y) {
    for (i64 r = 0; r < n_rows; r += 2, y += H) {
        const bf16 *a = x + r * stride, *b = a + stride;
        for (i64 h = 0; h < H; h += 16) {
            __m256i low = _mm256_loadu_si256((const __m256i *)(a + h));
            __m256i high = r + 1 < n_rows ? _mm256_loadu_si256((const __m256i *)(b + h)) : _mm256_setzero_si256();
            _mm512_storeu_si512(y + h, join(low, high));
        }
    }
}

/* Rows (rows, H) times packed columns -> scores (rows, ld); row i only up to the keys the last row of its tile sees,
 * where row i sees min(seen + i, n_keys) keys. */
static void score(const bf16 *x, i64 stride, const word *columns, float *scores, i64 ld, i64 rows, i64 n_keys, i64 H, i64 seen) {
    for (i64 key = 0; key < at_most(seen + rows - 1, n_keys); key += PANEL, columns += H / 2 * PANEL)
        for (i64 i = 0; i < rows; i += ROWS) {
            i64 m = at_most(ROWS, rows - i), n = at_most(seen + i + m - 1, n_keys) - key;
            if (n > 0)
                any_tile(m, (at_most(n, PANEL) + 15) / 16, (const word *)(x + i * stride), stride / 2, 1, columns, PANEL,
                         scores + i * ld + key, ld, H / 2, 0);
        }
}

/* out (rows, H) += weights (rows, n_keys) times packed rows, over the keys seen. */
static void weigh(const bf16 *weights, i64 ld, const word *packed, float *out, i64 rows, i64 n_keys, i64 H, i64 seen, int add) {
    for (i64 h = 0; h < H; h += PANEL)
        for (i64 i = 0; i < rows; i += ROWS) {
            i64 m = at_most(ROWS, rows - i), n = at_least(at_most(seen + i + m - 1, n_keys), 0);
            any_tile(m, at_most(PANEL, H - h) / 16, (const word *)(weights + i * ld), ld / 2, 1, packed + h, H,
                     out + i * H + h, H, (n + 1) / 2, add);
        }
}

/* out (n_keys, H) += weights' (rows/2 pairs, ld keys) times packed rows of queries, over the queries that see a key. */
static void weigh_back(const word *weights, i64 ld, const word *packed, float *out, i64 rows, i64 n_keys, i64 H, i64 seen) {
    i64 pairs = (rows + 1) / 2;
    for (i64 h = 0; h < H; h += PANEL)
        for (i64 j = 0; j < at_most(seen + rows - 1, n_keys); j += ROWS) {
            i64 m = at_most(ROWS, n_keys - j), p = at_least(j + 1 - seen, 0) / 2;
            any_tile(m, at_most(PANEL, H - h) / 16, weights + p * ld + j, 1, ld, packed + p * H + h, H,
                     out + j * H + h, H, pairs - p, 1);
        }
}

/* Where one thread works; every part starts on a cache line. */
typedef struct {
    word *columns, *other_columns, *key_rows, *query_rows, *dout_rows, *weight_pairs, *dscore_pairs;
    float *scores, *dweights, *sum, *dk, *dv, *dots, *top, *total;
    bf16 *weights;
    i64 ld;
} Scratch;

static inline void *take(char *base, i64 *used, i64 n_bytes) {
    void *part = base + *used;
    *used += round_up(n_bytes, 64);
    return part;
}

static i64 lay_out(Scratch *s, char *base, i64 T, i64 H, i64 backward) {
    i64 chunk = chunk_size(T), whole = round_up(T, PANEL), held = backward ? chunk : whole, used = 0;
    s->ld = chunk + SLACK;
    s->columns = take(base, &used, held * H * 2);
    s->key_rows = take(base, &used, held * H * 2);
    s->scores = take(base, &used, QUERIES * s->ld * 4);
    s->weights = take(base, &used, QUERIES * s->ld * 2);
    s->sum = take(base, &used, (backward ? whole : QUERIES) * H * 4);
    s->top = take(base, &used, QUERIES * 4);
    s->total = take(base, &used, QUERIES * 4);
    if (!backward) return used;
    s->other_columns = take(base, &used, held * H * 2);
    s->query_rows = take(base, &used, whole * H * 2);
    s->dout_rows = take(base, &used, whole * H * 2);
    s->weight_pairs = take(base, &used, QUERIES / 2 * s->ld * 4);
    s->dscore_pairs = take(base, &used, QUERIES / 2 * s->ld * 4);
    s->dweights = take(base, &used, QUERIES * s->ld * 4);
    s->dk = take(base, &used, chunk * H * 4);
    s->dv = take(base, &used, chunk * H * 4);
    s->dots = take(base, &used, whole * 4);
    return used;
}

/* Bytes of scratch one thread needs. */
i64 fused_attention_scratch(i64 T, i64 H, i64 backward) { Scratch s; return round_up(lay_out(&s, 0, T, H, backward), 4096); }

/* Scores of one row -> bf16 exp2(unit * score - top), 0 past the n keys seen. top and total run along the chunks; returns
 * what earlier sums must be multiplied by. */
static float soften(const float *scores, bf16 *weights, i64 n, float unit, float *top, float *total) {
    __m512 high = _mm512_set1_ps(-INFINITY), sum = _mm512_setzero_ps(), factor = _mm512_set1_ps(unit);
    i64 full = n / 16 * 16, s = 0;
    for (; s < full; s += 16) high = _mm512_max_ps(high, _mm512_loadu_ps(scores + s));
    high = _mm512_mask_max_ps(high, first_lanes(n - s), high, _mm512_loadu_ps(scores + s));
    float before = *top, now = fmaxf(before, unit * _mm512_reduce_max_ps(high)), shrink = exp2f(before - now);
    __m512 shift = _mm512_set1_ps(now);
    for (s = 0; s < full; s += 16) {
        __m512 w = exp2_fast(_mm512_fmsub_ps(_mm512_loadu_ps(scores + s), factor, shift));
        sum = _mm512_add_ps(sum, w);
        _mm256_storeu_si256((__m256i *)(weights + s), narrow(w));
    }
    __m512 w = _mm512_maskz_mov_ps(first_lanes(n - s), exp2_fast(_mm512_fmsub_ps(_mm512_loadu_ps(scores + s), factor, shift)));
    _mm256_storeu_si256((__m256i *)(weights + s), narrow(w));
    _mm256_storeu_si256((__m256i *)(weights + s + 16), _mm256_setzero_si256());
    *total = *total * shrink + _mm512_reduce_add_ps(_mm512_add_ps(sum, w));
    *top = now;
    return shrink;
}

static void forward_head(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, i64 out_row, float *log_z, i64 T, i64 H,
                         float unit, Scratch s) {
    i64 chunk = chunk_size(T);
    pack_columns(k, H, T, H, s.columns);
    pack_rows(v, H, T, H, s.key_rows);
    for (i64 from = 0; from < T; from += QUERIES) {
        i64 rows = at_most(QUERIES, T - from);
        for (i64 i = 0; i < rows; i++) { s.top[i] = -3.0e38f; s.total[i] = 0; }
        for (i64 key = 0; key < from + rows; key += chunk) {
            i64 n_keys = at_most(chunk, T - key), seen = from - key + 1;
            score(q + from * H, H, s.columns + key * (H / 2), s.scores, s.ld, rows, n_keys, H, seen);
            for (i64 i = 0; i < rows; i++) {
                i64 n = at_least(at_most(seen + i, n_keys), 0);
                float shrink = soften(s.scores + i * s.ld, s.weights + i * s.ld, n, unit, s.top + i, s.total + i);
                for (i64 h = 0; key && h < H; h++) s.sum[i * H + h] *= shrink;
            }
            weigh(s.weights, s.ld, s.key_rows + key / 2 * H, s.sum, rows, n_keys, H, seen, key > 0);
        }
        for (i64 i = 0; i < rows; i++) {
            __m512 inverse = _mm512_set1_ps(1.0f / s.total[i]);
            for (i64 h = 0; h < H; h += 16)
                _mm256_storeu_si256((__m256i *)(out + (from + i) * out_row + h),
                                    narrow(_mm512_mul_ps(_mm512_loadu_ps(s.sum + i * H + h), inverse)));
            log_z[from + i] = s.top[i] + log2f(s.total[i]);
        }
    }
}

/* Two rows of scores and dweights -> weights as pairs, dscores as pairs and as rows: w = exp2(unit * score - log_z),
 * dscore = w * (dweight - dot); 0 past the n[0], n[1] keys seen. */
static void soften_back(const Scratch *s, i64 i, const i64 n[2], float unit, const float log_z[2], const float dots[2]) {
    i64 full = at_most(n[0], n[1]) / 16 * 16, end = round_up(at_least(n[0], n[1]), 16) + 16;
    for (i64 at = 0; at < end; at += 16) {
        __m256i w16[2], d16[2];
        #pragma GCC unroll 2
        for (int r = 0; r < 2; r++) {
            i64 place = (i + r) * s->ld + at;
            __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(s->scores + place), _mm512_set1_ps(unit), _mm512_set1_ps(log_z[r]));
            __mmask16 lanes = at < full ? 0xffff : first_lanes(n[r] - at);
            __m512 w = _mm512_maskz_mov_ps(lanes, exp2_fast(x));
            __m512 d = _mm512_maskz_mul_ps(lanes, w, _mm512_sub_ps(_mm512_loadu_ps(s->dweights + place), _mm512_set1_ps(dots[r])));
            w16[r] = narrow(w); d16[r] = narrow(d);
            _mm256_storeu_si256((__m256i *)(s->weights + place), d16[r]);
        }
        _mm512_storeu_si512(s->weight_pairs + i / 2 * s->ld + at, join(w16[0], w16[1]));
        _mm512_storeu_si512(s->dscore_pairs + i / 2 * s->ld + at, join(d16[0], d16[1]));
    }
}

static void put(const float *x, bf16 *y, i64 n, float factor) {
    for (i64 i = 0; i < n; i += 16)
        _mm256_storeu_si256((__m256i *)(y + i), narrow(_mm512_mul_ps(_mm512_loadu_ps(x + i), _mm512_set1_ps(factor))));
}

static void backward_head(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *out, const bf16 *dout, i64 out_row,
                          const float *log_z, bf16 *dq, bf16 *dk, bf16 *dv, i64 T, i64 H, float factor, Scratch s) {
    i64 chunk = chunk_size(T);
    pack_rows(q, H, T, H, s.query_rows);
    pack_rows(dout, out_row, T, H, s.dout_rows);
    for (i64 t = 0; t < T; t++) {
        __m512 sum = _mm512_setzero_ps();
        for (i64 h = 0; h < H; h += 16) sum = _mm512_fmadd_ps(widen(out + t * out_row + h), widen(dout + t * out_row + h), sum);
        s.dots[t] = _mm512_reduce_add_ps(sum);
    }
    memset(s.sum, 0, (size_t)(T * H) * 4);
    for (i64 key = 0; key < T; key += chunk) {
        i64 n_keys = at_most(chunk, T - key);
        pack_columns(k + key * H, H, n_keys, H, s.columns);
        pack_columns(v + key * H, H, n_keys, H, s.other_columns);
        pack_rows(k + key * H, H, n_keys, H, s.key_rows);
        memset(s.dk, 0, (size_t)(n_keys * H) * 4);
        memset(s.dv, 0, (size_t)(n_keys * H) * 4);
        for (i64 from = key / QUERIES * QUERIES; from < T; from += QUERIES) {
            i64 rows = at_most(QUERIES, T - from), seen = from - key + 1;
            score(q + from * H, H, s.columns, s.scores, s.ld, rows, n_keys, H, seen);
            score(dout + from * out_row, out_row, s.other_columns, s.dweights, s.ld, rows, n_keys, H, seen);
            for (i64 i = 0; i < rows; i += 2) {
                i64 pair = i + 1 < rows, t = from + i; /* a missing second row sees nothing */
                i64 n[2] = {at_least(at_most(seen + i, n_keys), 0), pair * at_least(at_most(seen + i + 1, n_keys), 0)};
                float z[2] = {log_z[t], log_z[t + pair]}, dots[2] = {s.dots[t], s.dots[t + pair]};
                soften_back(&s, i, n, factor * LOG2E, z, dots);
            }
            weigh_back(s.weight_pairs, s.ld, s.dout_rows + from / 2 * H, s.dv, rows, n_keys, H, seen);
            weigh_back(s.dscore_pairs, s.ld, s.query_rows + from / 2 * H, s.dk, rows, n_keys, H, seen);
            weigh(s.weights, s.ld, s.key_rows, s.sum + from * H, rows, n_keys, H, seen, 1);
        }
        put(s.dk, dk + key * H, n_keys * H, factor);
        put(s.dv, dv + key * H, n_keys * H, 1.0f);
    }
    put(s.sum, dq, T * H, factor);
}

/* out = softmax(factor * q k', causal) v; log_z (B, N, T) is the base-2 log-sum-exp of a row's scores. */
void fused_attention_forward(const bf16 *q, const bf16 *k, const bf16 *v, bf16 *out, float *log_z, i64 B, i64 N, i64 T,
                             i64 H, float factor, char *scratch, i64 n_threads) {
    i64 size = fused_attention_scratch(T, H, 0);
    #pragma omp parallel for schedule(static) num_threads((int)n_threads)
    for (i64 part = 0; part < n_threads; part++) {
        Scratch s;
        lay_out(&s, scratch + part * size, T, H, 0);
        for (i64 g = B * N * part / n_threads; g < B * N * (part + 1) / n_threads; g++) {
            i64 at = g * T * H;
            forward_head(q + at, k + at, v + at, out + g / N * T * N * H + g % N * H, N * H, log_z + g * T, T, H,
                         factor * LOG2E, s);
        }
    }
}

/* Gradients of the above: dq, dk, dv (B, N, T, H) from dout (B, T, N, H). */
void fused_attention_backward(const bf16 *q, const bf16 *k, const bf16 *v, const bf16 *out, const bf16 *dout,
                              const float *log_z, bf16 *dq, bf16 *dk, bf16 *dv, i64 B, i64 N, i64 T, i64 H,
                              float factor, char *scratch, i64 n_threads) {
    i64 size = fused_attention_scratch(T, H, 1);
    #pragma omp parallel for schedule(static) num_threads((int)n_threads)
    for (i64 part = 0; part < n_threads; part++) {
        Scratch s;
        lay_out(&s, scratch + part * size, T, H, 1);
        for (i64 g = B * N * part / n_threads; g < B * N * (part + 1) / n_threads; g++) {
            i64 at = g * T * H, joined = g / N * T * N * H + g % N * H;
            backward_head(q + at, k + at, v + at, out + joined, dout + joined, N * H, log_z + g * T, dq + at, dk + at,
                          dv + at, T, H, factor, s);
        }
    }
}
#endif
