// Spectrograms: see ops.mel_spectrogram. N_FFT: samples in a frame; RADICES: factors of N_FFT, by which it is transformed; FRAMES: of
// a clip that a block transforms at a time; LOG: 0 for power, 1 for its natural logarithm, 2 for log10, 3 for 10 · log10.
#include "common.cuh"

namespace {

constexpr int THREADS = 256, BINS = N_FFT / 2 + 1;

struct Complex {
    float re, im;
};

// A stage of Stockham's transform (Govindaraju et al. 2008, "High performance discrete Fourier transforms on graphics
// processors", section 3): transforms of `done` numbers become such of R · done. Each result is a sum of R products, with
// roots of unity out of a table; so R may be any number, and a prime N_FFT is transformed by its definition.
template <int R> DEVICE void stage(Complex* to, const Complex* from, const Complex* roots, int done, int wanted) {
    const int size = R * done, step = N_FFT / size;
    for (int i = threadIdx.x; i < FRAMES * wanted; i += THREADS) {
        const int frame = i / wanted, at = i % wanted, within = at % size;
        const Complex* x = from + frame * N_FFT + at / size * done + within % done;
        const int turn = within * step;  // of N_FFT, from each of the R numbers to the next
        Complex sum = x[0];
        int root = 0;
#pragma unroll(R < 8 ? R : 8)
        for (int q = 1; q < R; ++q) {
            root += turn;
            if (root >= N_FFT) root -= N_FFT;
            const Complex w = roots[root], y = x[q * (N_FFT / R)];
            sum.re += y.re * w.re - y.im * w.im;
            sum.im += y.re * w.im + y.im * w.re;
        }
        to[frame * N_FFT + at] = sum;
    }
    __syncthreads();
}

// The stages one after another, to and fro between two memories; the last gives the bins alone. Says where they are.
template <int R, int... REST>
DEVICE Complex* transform(Complex* from, Complex* to, const Complex* roots, int done) {
    if constexpr (sizeof...(REST) > 0) {
        stage<R>(to, from, roots, done, N_FFT);
        return transform<REST...>(to, from, roots, done * R);
    } else {
        stage<R>(to, from, roots, done, BINS);
        return to;
    }
}

// Which sample is at a place before the first or behind the last: they are reflected there.
DEVICE i64 reflected(i64 at, i64 count) { return at < 0 ? -at : at < count ? at : 2 * (count - 1) - at; }

// A whole number that is larger for a larger float; the largest for NaN.
DEVICE u32 ordered(float x) {
    const u32 bits = __float_as_uint(x);
    return x != x ? 0xffffffffu : bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
DEVICE float number(u32 order) { return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order); }

DEVICE float at_least(float x, float least) { return x < least || least != least ? least : x; }  // NaN if either is

}  // namespace

// Makes what all frames need: roots (N_FFT,) of unity, the window (N_FFT,), and of each filter (bands, BINS) the first of its bins
// that is not 0 and the one behind the last. Clips' maxima begin at the lowest.
extern "C" __global__ void __launch_bounds__(THREADS)
    prepare(Complex* roots, float* window, int2* spans, u32* highest, const float* filters, i64 bands, i64 clips) {
    next_may_start();
    wait_for_previous();
    const i64 first = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x, all = static_cast<i64>(gridDim.x) * THREADS;
    for (i64 i = first; i < N_FFT; i += all) {
        double sine, cosine;
        sincospi(2.0 * i / N_FFT, &sine, &cosine);
        roots[i] = {static_cast<float>(cosine), static_cast<float>(-sine)};
        window[i] = static_cast<float>(0.5 - 0.5 * cosine);
    }
    for (i64 i = first; i < clips; i += all) highest[i] = 0;
    for (i64 band = first / 32; band < bands; band += all / 32) {
        int begin = BINS, end = 0;
        for (int bin = threadIdx.x % 32; bin < BINS; bin += 32)
            if (filters[band * BINS + bin] != 0.0f) begin = min(begin, bin), end = bin + 1;
        begin = __reduce_min_sync(0xffffffffu, begin), end = __reduce_max_sync(0xffffffffu, end);
        if (threadIdx.x % 32 == 0) spans[band] = make_int2(begin, end);
    }
}

// From samples (clips, count) to bands (clips, bands, frames). `before`: samples before the first frame's own.
extern "C" __global__ void __launch_bounds__(THREADS)
    mel(float* out, const float* samples, const float* filters, const Complex* table, const float* window,
        const int2* spans, u32* highest, i64 count, i64 bands, i64 frames, i64 hop, i64 before, double least) {
    extern __shared__ Complex memory[];
    Complex *const roots = memory, *const one = roots + N_FFT, *const other = one + FRAMES * N_FFT;
    next_may_start();
    wait_for_previous();
    const i64 groups = (frames + FRAMES - 1) / FRAMES, clip = blockIdx.x / groups;
    const i64 first = blockIdx.x % groups * FRAMES;
    const float* const x = samples + clip * count;
    for (int i = threadIdx.x; i < N_FFT; i += THREADS) roots[i] = table[i];
    for (int i = threadIdx.x; i < FRAMES * N_FFT; i += THREADS) {
        const i64 frame = first + i / N_FFT, at = frame * hop + i % N_FFT - before;
        one[i] = {frame < frames ? x[reflected(at, count)] * window[i % N_FFT] : 0.0f, 0.0f};
    }
    __syncthreads();
    const Complex* const spectrum = transform<RADICES>(one, other, roots, 1);
    float* const power = reinterpret_cast<float*>(spectrum == one ? other : one);
    for (int i = threadIdx.x; i < FRAMES * BINS; i += THREADS) {
        const Complex y = spectrum[i / BINS * N_FFT + i % BINS];
        power[i] = y.re * y.re + y.im * y.im;
    }
    __syncthreads();
    u32 top = 0;
    for (i64 i = threadIdx.x; i < FRAMES * bands; i += THREADS) {
        const i64 band = i / FRAMES, frame = first + i % FRAMES;
        if (frame >= frames) continue;
        const int2 span = spans[band];
        const float* const p = power + i % FRAMES * BINS;
        float y = 0.0f;
        for (int bin = span.x; bin < span.y; ++bin) y += filters[band * BINS + bin] * p[bin];
        if (LOG > 0) y = at_least(y, static_cast<float>(least));
        if (LOG == 1) y = logf(y);
        if (LOG > 1) y = log10f(y) * (LOG == 3 ? 10.0f : 1.0f);
        out[(clip * bands + band) * frames + frame] = y;
        top = max(top, ordered(y));
    }
    top = __reduce_max_sync(0xffffffffu, top);
    if (threadIdx.x % 32 == 0) atomicMax(highest + clip, top);
}

// Raises what lies further than `range` below its clip's maximum, in (clips, size), to that level.
extern "C" __global__ void __launch_bounds__(THREADS)
    raise(float* out, const u32* highest, i64 total, i64 size, double range) {
    next_may_start();
    wait_for_previous();
    const i64 i = static_cast<i64>(blockIdx.x) * THREADS + threadIdx.x;
    if (i < total) out[i] = at_least(out[i], number(highest[i / size]) - static_cast<float>(range));
}
