/* WaveNet's gated unit (van den Oord et al. 2016, equation 2) in one pass: bias, tanh, sigmoid, product; and back.
 *
 * Written like kernels.c: no intrinsic, arithmetic in float, every kernel for float and bfloat16, plain references in
 * the tests. Rows are time-major: row t * B + b is step t of sample b.
 * Shapes: T steps, B samples, G gates; z (T*B, 2G): tanh half, then sigmoid half; about (B, 2G) float.
 */
#ifndef ELEMENT
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;
typedef int64_t i64;

static inline float from_bf16(bf16 x) { uint32_t u = (uint32_t)x << 16; float f; memcpy(&f, &u, 4); return f; }
static inline bf16 to_bf16(float f) { /* round to nearest even; a NaN stays a NaN */
    uint32_t u; memcpy(&u, &f, 4);
    uint32_t r = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return (bf16)((u & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : r);
}
static inline float from_f32(float x) { return x; }
static inline float to_f32(float x) { return x; }

/* exp for x in [-87, 88] by 2^n * 2^f, degree-6 Taylor of 2^f on [-1/2, 1/2]; relative error below 3e-7. */
static inline float exp_fast(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float t = x * 1.44269504f, n = (t + 12582912.0f) - 12582912.0f, f = t - n;
    float p = 1.5403530e-4f;
    p = p * f + 1.3333558e-3f; p = p * f + 9.6181291e-3f; p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f; p = p * f + 6.9314718e-1f; p = p * f + 1.0f;
    int32_t e = ((int32_t)n + 127) << 23; float s; memcpy(&s, &e, 4);
    return p * s;
}

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

/* z + about -> (tanh, sigmoid) in place; out[row * stride + g] = tanh * sigmoid. A NaN stays a NaN. */
void NAME(gated_forward)(ELEMENT *z, const float *about, ELEMENT *out, i64 T, i64 B, i64 G, i64 stride) {
    #pragma omp parallel for schedule(static)
    for (i64 r = 0; r < T * B; r++) {
        ELEMENT *a = z + r * 2 * G, *b = a + G, *o = out + r * stride;
        const float *p = about + (r % B) * 2 * G, *q = p + G;
        #pragma omp simd
        for (i64 g = 0; g < G; g++) {
            float x = GET(a[g]) + p[g], e = exp_fast(-2.0f * fabsf(x));
            float f = copysignf((1.0f - e) / (1.0f + e), x), s = 1.0f / (1.0f + exp_fast(-(GET(b[g]) + q[g])));
            f = x != x ? x : f;
            a[g] = PUT(f); b[g] = PUT(s); o[g] = PUT(f * s);
        }
    }
}

/* (tanh, sigmoid) in z and d = d loss / d out (rows `stride` apart) -> d loss / d z in place; sums of it into dabout. */
void NAME(gated_backward)(ELEMENT *z, const ELEMENT *d, float *dabout, i64 T, i64 B, i64 G, i64 stride) {
    #pragma omp parallel for schedule(static)
    for (i64 b = 0; b < B; b++) {
        float *p = dabout + b * 2 * G, *q = p + G;
        memset(p, 0, (size_t)(2 * G) * sizeof(float));
        for (i64 t = 0; t < T; t++) {
            i64 r = t * B + b;
            ELEMENT *u = z + r * 2 * G, *v = u + G;
            const ELEMENT *dr = d + r * stride;
            #pragma omp simd
            for (i64 g = 0; g < G; g++) {
                float f = GET(u[g]), s = GET(v[g]), o = GET(dr[g]);
                float df = o * s * (1.0f - f * f), ds = o * f * s * (1.0f - s);
                u[g] = PUT(df); v[g] = PUT(ds); p[g] += df; q[g] += ds;
            }
        }
    }
}

#undef NAME
#endif
