/* danlu's CPU kernels: the parts of a transformer step that are bound by memory, each in one pass.
 *
 * Matrix products stay with the library (oneDNN, MKL). Everything here is written so that a plain C compiler
 * vectorises it; there is no intrinsic and no header beyond libc. Every kernel exists for float and bfloat16
 * (suffix _f32, _bf16; arithmetic is always float), and has a plain reference in the tests.
 * Sums over rows are cut into N_PARTS fixed parts, so no result depends on the number of threads.
 *
 * Shapes: R rows, D width, B batch, T tokens, N query heads, K key heads, H head width, V vocabulary.
 */
#ifndef ELEMENT
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef int64_t i64;
enum { N_PARTS = 32 };

static inline float from_bf16(bf16 x) { uint32_t u = (uint32_t)x << 16; float f; memcpy(&f, &u, 4); return f; }
static inline bf16 to_bf16(float f) { /* round to nearest even; a NaN stays a NaN */
    uint32_t u; memcpy(&u, &f, 4);
    uint32_t r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (bf16)((u & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : r);
}
static inline float from_f32(float x) { return x; }
static inline float to_f32(float x) { return x; }

/* exp by 2^n * 2^f, degree-6 Taylor of 2^f on [-1/2, 1/2]; relative error below 3e-7; exp(x < -87) = exp(-87). */
static inline float exp_fast(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float t = x * 1.44269504f, n = (t + 12582912.0f) - 12582912.0f, f = t - n;
    float p = 1.5403530e-4f;
    p = p * f + 1.3333558e-3f; p = p * f + 9.6181291e-3f; p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f; p = p * f + 6.9314718e-1f; p = p * f + 1.0f;
    int32_t e = ((int32_t)n + 127) << 23; float s; memcpy(&s, &e, 4);
    return p * s;
}
static inline float tanh_fast(float x) { float e = exp_fast(-2.0f * fabsf(x)); return copysignf((1.0f - e) / (1.0f + e), x); }

#define ALWAYS_INLINE static inline __attribute__((always_inline))
/* The sum of 16 numbers, in halves: a chain of 4 additions, where a plain loop is one of 16. */
ALWAYS_INLINE float sum_lanes(float *x) {
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++) x[i] += x[i + n];
    return x[0];
}
/* f(.., H) with the usual widths as constants, so that the loops inside unroll. */
#define FOR_WIDTH(f, H, ...) \
    if (H == 64) f(__VA_ARGS__, 64); else if (H == 128) f(__VA_ARGS__, 128); else if (H == 32) f(__VA_ARGS__, 32); \
    else f(__VA_ARGS__, H)
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define ELEMENT float
#define SUFFIX f32
#define GET from_f32
#define PUT to_f32
#include __FILE__
#undef ELEMENT
#undef SUFFIX
#undef GET
#undef PUT
#define ELEMENT bf16
#define SUFFIX bf16
#define GET from_bf16
#define PUT to_bf16
#include __FILE__

#else
#define NAME(f) JOIN(f, SUFFIX)

/* y = (x [+ delta]) / rms * gain. With delta, the sum is stored in `total`. scale[r] = 1/rms. (Zhang & Sennrich 2019) */
void NAME(rms_forward)(const ELEMENT *x, const ELEMENT *delta, const float *gain, ELEMENT *total, ELEMENT *y,
                       float *scale, i64 R, i64 D, float eps) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < R; r++) {
        const ELEMENT *xr = x + r * D; ELEMENT *yr = y + r * D;
        if (delta) {
            ELEMENT *tr = total + r * D; const ELEMENT *dr = delta + r * D;
            #pragma omp simd
            for (i64 d = 0; d < D; d++) tr[d] = PUT(GET(xr[d]) + GET(dr[d]));
            xr = tr;
        }
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (i64 d = 0; d < D; d++) { float v = GET(xr[d]); sum += v * v; }
        float s = 1.0f / sqrtf(sum / (float)D + eps);
        scale[r] = s;
        if (gain) {
            #pragma omp simd
            for (i64 d = 0; d < D; d++) yr[d] = PUT(GET(xr[d]) * s * gain[d]);
        } else {
            #pragma omp simd
            for (i64 d = 0; d < D; d++) yr[d] = PUT(GET(xr[d]) * s);
        }
    }
}

/* dx = scale * (g - x * scale^2 * mean(g * x)) [+ dtotal], g = dy * gain; parts[p, D] = sum of dy * x * scale over part p. */
void NAME(rms_backward)(const ELEMENT *dy, const ELEMENT *x, const float *gain, const float *scale,
                        const ELEMENT *dtotal, ELEMENT *dx, float *parts, i64 R, i64 D) {
    #pragma omp parallel for schedule(static)
    for (i64 p = 0; p < N_PARTS; p++) {
        float *part = parts ? parts + p * D : 0;
        if (part) memset(part, 0, (size_t)D * sizeof(float));
        for (i64 r = R * p / N_PARTS; r < R * (p + 1) / N_PARTS; r++) {
            const ELEMENT *gr = dy + r * D, *xr = x + r * D; ELEMENT *dr = dx + r * D;
            float s = scale[r], dot = 0;
            if (gain) {
                #pragma omp simd reduction(+ : dot)
                for (i64 d = 0; d < D; d++) dot += GET(gr[d]) * gain[d] * GET(xr[d]);
            } else {
                #pragma omp simd reduction(+ : dot)
                for (i64 d = 0; d < D; d++) dot += GET(gr[d]) * GET(xr[d]);
            }
            float c = dot * s * s / (float)D;
            if (part) {
                #pragma omp simd
                for (i64 d = 0; d < D; d++) part[d] += GET(gr[d]) * GET(xr[d]) * s;
            }
            #pragma omp simd
            for (i64 d = 0; d < D; d++) {
                float g = gain ? GET(gr[d]) * gain[d] : GET(gr[d]);
                float v = s * (g - GET(xr[d]) * c);
                dr[d] = PUT(dtotal ? v + GET(dtotal[r * D + d]) : v);
            }
        }
    }
}

/* One token of heads_forward; H is a constant at most calls, so that its loops unroll. */
ALWAYS_INLINE void NAME(heads_forward_token)(const ELEMENT *row, const float *c, const float *s, ELEMENT *q, ELEMENT *k,
                                             ELEMENT *v, float *scale, i64 T, i64 N, i64 K, i64 norm, float eps, const i64 H) {
    const i64 h2 = H / 2;
    if (norm) {
        for (i64 n = 0; n < N + K; n++) {
            float sum = 0;
            #pragma omp simd reduction(+ : sum)
            for (i64 h = 0; h < H; h++) sum += GET(row[n * H + h]) * GET(row[n * H + h]);
            scale[n] = sum;
        }
        #pragma omp simd
        for (i64 n = 0; n < N + K; n++) scale[n] = 1.0f / sqrtf(scale[n] / (float)H + eps);
    }
    for (i64 n = 0; n < N + K; n++) {
        const ELEMENT *x = row + n * H;
        ELEMENT *y = n < N ? q + n * T * H : k + (n - N) * T * H;
        float m = norm ? scale[n] : 1.0f;
        #pragma omp simd
        for (i64 h = 0; h < h2; h++) {
            float a = GET(x[h]) * m, z = GET(x[h + h2]) * m;
            y[h] = PUT(a * c[h] - z * s[h]);
            y[h + h2] = PUT(a * s[h] + z * c[h]);
        }
    }
    for (i64 n = 0; n < K; n++) memcpy(v + n * T * H, row + (N + K + n) * H, (size_t)H * sizeof(ELEMENT));
}

/* One (B, T, (N + 2K) H) projection -> q (B, N, T, H), k and v (B, K, T, H); q and k normalised (if norm) and rotated by
 * cos, sin (T, H/2). scale (B, T, N + K) keeps 1/rms. (RoPE: Su et al. 2021; QK-norm: Henry et al. 2020, Dehghani 2023) */
void NAME(heads_forward)(const ELEMENT *qkv, const float *cosines, const float *sines, ELEMENT *q, ELEMENT *k,
                         ELEMENT *v, float *scale, i64 B, i64 T, i64 N, i64 K, i64 H, i64 norm, float eps) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < B * T; r++) {
        i64 b = r / T, t = r % T, at = (b * K * T + t) * H;
        FOR_WIDTH(NAME(heads_forward_token), H, qkv + r * (N + 2 * K) * H, cosines + t * (H / 2), sines + t * (H / 2),
                  q + (b * N * T + t) * H, k + at, v + at, scale + r * (N + K), T, N, K, norm, eps);
    }
}

ALWAYS_INLINE void NAME(heads_backward_token)(const ELEMENT *dq, const ELEMENT *dk, const ELEMENT *dv, const ELEMENT *row,
                                              const float *c, const float *s, const float *scale, ELEMENT *drow, i64 T,
                                              i64 N, i64 K, i64 norm, const i64 H) {
    const i64 h2 = H / 2;
    for (i64 n = 0; n < N + K; n++) {
        const ELEMENT *dy = n < N ? dq + n * T * H : dk + (n - N) * T * H, *x = row + n * H;
        ELEMENT *dx = drow + n * H;
        float m = norm ? scale[n] : 1.0f, dot = 0;
        if (norm) {
            float lanes[16] = {0};
            for (i64 h = 0; h < h2; h += 16) {
                i64 n_lanes = h2 - h < 16 ? h2 - h : 16;
                #pragma omp simd
                for (i64 l = 0; l < n_lanes; l++) {
                    float a = GET(dy[h + l]), z = GET(dy[h + l + h2]), u = GET(x[h + l]), w = GET(x[h + l + h2]);
                    lanes[l] += (a * u + z * w) * c[h + l] + (z * u - a * w) * s[h + l];
                }
            }
            dot = sum_lanes(lanes) * m * m / (float)H;
        }
        #pragma omp simd
        for (i64 h = 0; h < h2; h++) {
            float a = GET(dy[h]), z = GET(dy[h + h2]);
            dx[h] = PUT(m * (a * c[h] + z * s[h] - GET(x[h]) * dot));
            dx[h + h2] = PUT(m * (z * c[h] - a * s[h] - GET(x[h + h2]) * dot));
        }
    }
    for (i64 n = 0; n < K; n++) memcpy(drow + (N + K + n) * H, dv + n * T * H, (size_t)H * sizeof(ELEMENT));
}

/* Gradients of heads_forward, from dq, dk, dv and the projection itself. */
void NAME(heads_backward)(const ELEMENT *dq, const ELEMENT *dk, const ELEMENT *dv, const ELEMENT *qkv,
                          const float *cosines, const float *sines, const float *scale, ELEMENT *dqkv, i64 B, i64 T,
                          i64 N, i64 K, i64 H, i64 norm) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < B * T; r++) {
        i64 b = r / T, t = r % T, at = (b * K * T + t) * H, from = r * (N + 2 * K) * H;
        FOR_WIDTH(NAME(heads_backward_token), H, dq + (b * N * T + t) * H, dk + at, dv + at, qkv + from,
                  cosines + t * (H / 2), sines + t * (H / 2), scale + r * (N + K), dqkv + from, T, N, K, norm);
    }
}

/* In place: rows of scores (G groups, Q queries, S keys) -> softmax(scale * score) over the keys a query may see.
 * Query i of a group sees keys 0 .. offset + i; the rest become 0. */
void NAME(causal_softmax_forward)(ELEMENT *scores, i64 G, i64 Q, i64 S, i64 offset, float factor) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < G * Q; r++) {
        ELEMENT *row = scores + r * S;
        i64 n = offset + r % Q + 1;
        n = n > S ? S : n;
        float top = -3.0e38f, sum = 0;
        #pragma omp simd reduction(max : top)
        for (i64 s = 0; s < n; s++) { float x = GET(row[s]); top = x > top ? x : top; }
        #pragma omp simd reduction(+ : sum)
        for (i64 s = 0; s < n; s++) sum += exp_fast((GET(row[s]) - top) * factor);
        float inverse = 1.0f / sum;
        #pragma omp simd
        for (i64 s = 0; s < n; s++) row[s] = PUT(exp_fast((GET(row[s]) - top) * factor) * inverse);
        if (n < S) memset(row + n, 0, (size_t)(S - n) * sizeof(ELEMENT));
    }
}

/* In place on dweights (G, Q, S): dscore = factor * p * (dp - sum(dp * p)). */
void NAME(causal_softmax_backward)(const ELEMENT *weights, ELEMENT *dweights, i64 G, i64 Q, i64 S, i64 offset, float factor) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < G * Q; r++) {
        const ELEMENT *p = weights + r * S; ELEMENT *dp = dweights + r * S;
        i64 n = offset + r % Q + 1;
        n = n > S ? S : n;
        float dot = 0;
        #pragma omp simd reduction(+ : dot)
        for (i64 s = 0; s < n; s++) dot += GET(p[s]) * GET(dp[s]);
        #pragma omp simd
        for (i64 s = 0; s < n; s++) dp[s] = PUT(factor * GET(p[s]) * (GET(dp[s]) - dot));
        if (n < S) memset(dp + n, 0, (size_t)(S - n) * sizeof(ELEMENT));
    }
}

/* kind 0: max(x, 0)^2 (So et al. 2021, Primer); 1: GELU, tanh form (Hendrycks & Gimpel 2016); 2: ReLU; 3: SiLU. */
void NAME(activation_forward)(const ELEMENT *x, ELEMENT *y, i64 n, i64 kind) {
    #pragma omp parallel for schedule(static)
    for (i64 p = 0; p < N_PARTS; p++) {
        i64 from = n * p / N_PARTS, to = n * (p + 1) / N_PARTS;
        if (kind == 0) {
            #pragma omp simd
            for (i64 i = from; i < to; i++) { float v = GET(x[i]); v = v < 0 ? 0 : v; y[i] = PUT(v * v); }
        } else if (kind == 1) {
            #pragma omp simd
            for (i64 i = from; i < to; i++) {
                float v = GET(x[i]);
                y[i] = PUT(0.5f * v * (1.0f + tanh_fast(0.79788456f * (v + 0.044715f * v * v * v))));
            }
        } else if (kind == 2) {
            #pragma omp simd
            for (i64 i = from; i < to; i++) { float v = GET(x[i]); y[i] = PUT(v < 0 ? 0 : v); }
        } else {
            #pragma omp simd
            for (i64 i = from; i < to; i++) { float v = GET(x[i]); y[i] = PUT(v / (1.0f + exp_fast(-v))); }
        }
    }
}

void NAME(activation_backward)(const ELEMENT *x, const ELEMENT *dy, ELEMENT *dx, i64 n, i64 kind) {
    #pragma omp parallel for schedule(static)
    for (i64 p = 0; p < N_PARTS; p++) {
        i64 from = n * p / N_PARTS, to = n * (p + 1) / N_PARTS;
        if (kind == 0) {
            #pragma omp simd
            for (i64 i = from; i < to; i++) { float v = GET(x[i]); dx[i] = PUT(2.0f * (v < 0 ? 0 : v) * GET(dy[i])); }
        } else if (kind == 1) {
            #pragma omp simd
            for (i64 i = from; i < to; i++) {
                float v = GET(x[i]), t = tanh_fast(0.79788456f * (v + 0.044715f * v * v * v));
                float slope = 0.5f * (1.0f + t) + 0.5f * v * (1.0f - t * t) * 0.79788456f * (1.0f + 0.134145f * v * v);
                dx[i] = PUT(slope * GET(dy[i]));
            }
        } else if (kind == 2) {
            #pragma omp simd
            for (i64 i = from; i < to; i++) dx[i] = PUT(GET(x[i]) > 0 ? GET(dy[i]) : 0);
        } else {
            #pragma omp simd
            for (i64 i = from; i < to; i++) {
                float v = GET(x[i]), s = 1.0f / (1.0f + exp_fast(-v));
                dx[i] = PUT(GET(dy[i]) * s * (1.0f + v * (1.0f - s)));
            }
        }
    }
}

/* SwiGLU on x (R, 2F): y = silu(left half) * right half (Shazeer 2020). */
void NAME(swiglu_forward)(const ELEMENT *x, ELEMENT *y, i64 R, i64 F) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < R; r++) {
        const ELEMENT *gate = x + r * 2 * F, *up = gate + F; ELEMENT *out = y + r * F;
        #pragma omp simd
        for (i64 f = 0; f < F; f++) { float g = GET(gate[f]); out[f] = PUT(g / (1.0f + exp_fast(-g)) * GET(up[f])); }
    }
}

void NAME(swiglu_backward)(const ELEMENT *x, const ELEMENT *dy, ELEMENT *dx, i64 R, i64 F) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < R; r++) {
        const ELEMENT *gate = x + r * 2 * F, *up = gate + F, *d = dy + r * F; ELEMENT *dg = dx + r * 2 * F, *du = dg + F;
        #pragma omp simd
        for (i64 f = 0; f < F; f++) {
            float g = GET(gate[f]), s = 1.0f / (1.0f + exp_fast(-g)), o = GET(d[f]);
            dg[f] = PUT(o * GET(up[f]) * s * (1.0f + g * (1.0f - s)));
            du[f] = PUT(o * g * s);
        }
    }
}

/* Cross-entropy of scores (R, V) in place: scores become their own gradient (softmax - target, for a loss summed over
 * rows); losses[r] in nats, log_z[r] = log-sum-exp. A target of -1 gives loss 0 and gradient 0. Label smoothing and
 * z-loss as in tasks/losses.py. */
void NAME(cross_entropy)(ELEMENT *scores, const i64 *targets, float *losses, float *log_z, i64 R, i64 V,
                         float factor, float smoothing, float z_loss, i64 want_gradient) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < R; r++) {
        ELEMENT *row = scores + r * V; i64 target = targets[r];
        if (target < 0) {
            losses[r] = 0; log_z[r] = 0;
            if (want_gradient) memset(row, 0, (size_t)V * sizeof(ELEMENT));
            continue;
        }
        float top = -3.0e38f, sum = 0, total = 0;
        #pragma omp simd reduction(max : top)
        for (i64 v = 0; v < V; v++) { float x = GET(row[v]) * factor; top = x > top ? x : top; }
        #pragma omp simd reduction(+ : sum, total)
        for (i64 v = 0; v < V; v++) { float x = GET(row[v]) * factor; sum += exp_fast(x - top); total += x; }
        float z = logf(sum) + top, of_target = GET(row[target]) * factor;
        losses[r] = z - (1.0f - smoothing) * of_target - smoothing * total / (float)V + z_loss * z * z;
        log_z[r] = z;
        if (!want_gradient) continue;
        float a = (1.0f + 2.0f * z_loss * z) * factor / sum, b = smoothing * factor / (float)V;
        #pragma omp simd
        for (i64 v = 0; v < V; v++) row[v] = PUT(exp_fast(GET(row[v]) * factor - top) * a - b);
        float p = exp_fast(of_target - top) * a - b;
        row[target] = PUT(p - (1.0f - smoothing) * factor);
    }
}

/* (B, N, T, H) -> (B, T, N, H), or back. */
void NAME(merge_heads)(const ELEMENT *x, ELEMENT *y, i64 B, i64 N, i64 T, i64 H, i64 back) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < B * T; r++) {
        i64 b = r / T, t = r % T;
        for (i64 n = 0; n < N; n++) {
            i64 apart = ((b * N + n) * T + t) * H, joined = (r * N + n) * H;
            if (back) memcpy(y + apart, x + joined, (size_t)H * sizeof(ELEMENT));
            else memcpy(y + joined, x + apart, (size_t)H * sizeof(ELEMENT));
        }
    }
}
#undef NAME
#endif
