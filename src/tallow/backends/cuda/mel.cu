// Spectrograms: see ops.mel_spectrogram. N_FFT: samples in a frame; RADICES: its factors, by which it is transformed; FRAMES:
// of a clip that a block transforms at a time; LOG: 0 for power, 1 for its natural logarithm, 2 for log10, 3 for 10 · log10.
#include "common.cuh"

namespace {

constexpr int THREADS = 256, BINS = N_FFT / 2 + 1;

struct Complex {
    float re, im;
};
DEVICE Complex times(Complex x, Complex y) { return {x.re * y.re - x.im * y.im, x.re * y.im + x.im * y.re}; }

// Where a number lies in shared memory: 16 fill all banks, so that those 16 apart would otherwise wait for each other.
DEVICE constexpr int place(int i) { return i + i / 16; }
constexpr int FRAME = place(N_FFT);

// A stage of Stockham's transform makes transforms of R · done numbers out of those of `done`. Its table has the factors of
// the second number of each R, of the third, …, each (done,), and then the R-th roots of unity.
DEVICE constexpr int table_size(int r, int done) { return (r - 1) * done + r; }

template <int R> DEVICE void make_table(Complex* table, int done, int first, int all) {
    for (int i = first; i < table_size(R, done); i += all) {
        const int root = i - (R - 1) * done;  // from 0, behind the factors
        const double turns = root < 0 ? static_cast<double>(i / done + 1) * (i % done) / (R * done) : static_cast<double>(root) / R;
        double sine, cosine;
        sincospi(2.0 * turns, &sine, &cosine);
        table[i] = {static_cast<float>(cosine), static_cast<float>(-sine)};
    }
}
template <int R, int... REST> DEVICE void make_tables(Complex* tables, int done, int first, int all) {
    make_table<R>(tables, done, first, all);
    if constexpr (sizeof...(REST) > 0) make_tables<REST...>(tables + table_size(R, done), done * R, first, all);
}

// Source: Govindaraju et al. 2008, "High performance discrete Fourier transforms on graphics processors", section 3.
template <int R> DEVICE void stage(Complex* to, const Complex* from, const Complex* table, int done) {
    constexpr int COUNT = N_FFT / R;
    Complex roots[R];
#pragma unroll
    for (int r = 0; r < R; ++r) roots[r] = table[(R - 1) * done + r];
    for (int i = threadIdx.x; i < FRAMES * COUNT; i += THREADS) {
        const int j = i % COUNT, within = j % done, begin = j / done * done * R + within;
        const Complex* const x = from + i / COUNT * FRAME;
        Complex* const y = to + i / COUNT * FRAME;
        Complex v[R];
        v[0] = x[place(j)];
#pragma unroll
        for (int q = 1; q < R; ++q) v[q] = times(x[place(j + q * COUNT)], table[(q - 1) * done + within]);
#pragma unroll
        for (int r = 0; r < R; ++r) {
            Complex sum = v[0];
#pragma unroll
            for (int q = 1; q < R; ++q) {
                const Complex term = times(v[q], roots[q * r % R]);
                sum.re += term.re, sum.im += term.im;
            }
            y[place(begin + r * done)] = sum;
        }
    }
    __syncthreads();
}

// The stages one after another, to and fro between two memories. Says in which the result is.
template <int R, int... REST>
DEVICE Complex* transform(Complex* from, Complex* to, const Complex* tables, int done) {
    stage<R>(to, from, tables, done);
    if constexpr (sizeof...(REST) > 0)
        return transform<REST...>(to, from, tables + table_size(R, done), done * R);
    else
        return to;
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

// Makes what all frames need: the stages' tables, the window (N_FFT,), and of each filter (bands, BINS) the first of its bins
// that is not 0 and the one behind the last. Clips' maxima begin at the lowest.
extern "C" __global__ void __launch_bounds__(THREADS)
    prepare(Complex* tables, float* window, int2* spans, u32* highest, const float* filters, i64 bands, i64 clips) {
    next_may_start();
    wait_for_previous();
    const int first = blockIdx.x * THREADS + threadIdx.x, all = gridDim.x * THREADS;
    make_tables<RADICES>(tables, 1, first, all);
    for (int i = first; i < N_FFT; i += all) window[i] = static_cast<float>(0.5 - 0.5 * cospi(2.0 * i / N_FFT));
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
    mel(float* out, const float* samples, const float* filters, const Complex* tables, const float* window,
        const int2* spans, u32* highest, i64 count, i64 bands, i64 frames, i64 hop, i64 before, double least) {
    extern __shared__ Complex memory[];
    Complex *const one = memory, *const other = one + FRAMES * FRAME;
    next_may_start();
    wait_for_previous();
    const i64 groups = (frames + FRAMES - 1) / FRAMES, clip = blockIdx.x / groups;
    const i64 first = blockIdx.x % groups * FRAMES;
    const float* const x = samples + clip * count;
    for (int i = threadIdx.x; i < FRAMES * N_FFT; i += THREADS) {
        const int frame = i / N_FFT, at = i % N_FFT;
        float y = 0.0f;
        if (first + frame < frames) y = x[reflected((first + frame) * hop + at - before, count)] * window[at];
        one[frame * FRAME + place(at)] = {y, 0.0f};
    }
    __syncthreads();
    const Complex* const spectrum = transform<RADICES>(one, other, tables, 1);
    float* const power = reinterpret_cast<float*>(spectrum == one ? other : one);
    for (int i = threadIdx.x; i < FRAMES * BINS; i += THREADS) {
        const Complex y = spectrum[i / BINS * FRAME + place(i % BINS)];
        power[i] = y.re * y.re + y.im * y.im;
    }
    __syncthreads();
    u32 top = 0;
    for (int i = threadIdx.x; i < FRAMES * bands; i += THREADS) {
        const int band = i / FRAMES, frame = i % FRAMES;
        if (first + frame >= frames) continue;
        const int2 span = spans[band];
        const float *const filter = filters + static_cast<i64>(band) * BINS, *const p = power + frame * BINS;
        float y = 0.0f;
        for (int bin = span.x; bin < span.y; ++bin) y += filter[bin] * p[bin];
        if (LOG > 0) y = at_least(y, static_cast<float>(least));
        if (LOG == 1) y = logf(y);
        if (LOG > 1) y = log10f(y) * (LOG == 3 ? 10.0f : 1.0f);
        out[(clip * bands + band) * frames + first + frame] = y;
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
