// What this machine can do: fused multiply-adds and memory traffic, measured the way a good kernel would use them.
// Prints one JSON object. Build: c++ -O3 -march=native -fopenmp machine.cpp

#include <omp.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;
#endif
typedef float vec __attribute__((vector_size(BYTES), aligned(BYTES)));
constexpr int LANES = BYTES / sizeof(float);
constexpr int CHAINS = 12;  // independent chains: more than latency times units, fewer than registers

static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// GFLOP/s of fused multiply-adds in registers.
static double fma_peak(int threads, long rounds) {
    volatile float start = 0.5f;
    float kept = 0;
    const double begin = now();
#pragma omp parallel num_threads(threads) reduction(+ : kept)
    {
        vec a[CHAINS];
        vec x = vec{} + start, y = vec{} + start * 0.5f;
        for (int i = 0; i < CHAINS; ++i) a[i] = vec{} + start * float(i);
        for (long r = 0; r < rounds; ++r) {
#pragma GCC unroll 12
            for (int i = 0; i < CHAINS; ++i) a[i] = a[i] * x + y;
        }
        for (int i = 0; i < CHAINS; ++i) kept += a[i][0];
    }
    const double seconds = now() - begin;
    if (kept == 12345.0f) std::puts("");
    return 2.0 * LANES * CHAINS * double(rounds) * threads / seconds * 1e-9;
}

// GB/s of a = b + s*c (two reads and a write counted), arrays of `n` floats for each thread.
static double triad(int threads, long n, long rounds) {
    std::vector<double> seconds(threads);
#pragma omp parallel num_threads(threads)
    {
        float *a = static_cast<float *>(std::aligned_alloc(64, 3 * n * sizeof(float)));
        float *b = a + n, *c = b + n;
        for (long i = 0; i < n; ++i) a[i] = 0, b[i] = 1, c[i] = 2;
        for (int warm = 0; warm < 2; ++warm) {
#pragma omp barrier
            const double begin = now();
            for (long r = 0; r < (warm ? rounds : 1); ++r) {
                const float s = float(r);
#pragma omp simd aligned(a, b, c : 64)
                for (long i = 0; i < n; ++i) a[i] = b[i] + s * c[i];
                asm volatile("" : : "r"(a) : "memory");
            }
            seconds[omp_get_thread_num()] = now() - begin;
        }
        std::free(a);
    }
    double longest = 0;
    for (double s : seconds) longest = s > longest ? s : longest;
    return 3.0 * sizeof(float) * double(n) * double(rounds) * threads / longest * 1e-9;
}

int main(int count, char **arguments) {
    const bool memory = count > 1 && arguments[1][0] == 'm';
    if (!memory) {
        fma_peak(1, 1000000);  // the processor reaches its speed
        std::printf("{\"threads_1\": %.2f, \"threads_2\": %.2f}\n", fma_peak(1, 10000000), fma_peak(2, 10000000));
        return 0;
    }
    const struct { const char *name; long kibibytes; } levels[] = {
        {"L1", 24}, {"L2", 600}, {"L3", 6 * 1024}, {"memory", 192 * 1024}};
    std::printf("{");
    for (const auto &level : levels) {
        const long n = level.kibibytes * 1024 / 12 / 16 * 16;
        const long rounds = 1 + (2l << 30) / (12 * n) / (level.kibibytes > 8192 ? 2 : 1);
        std::printf("%s\"%s\": %.1f", level.name[0] == 'L' && level.name[1] == '1' ? "" : ", ", level.name,
                    triad(2, n, rounds));
    }
    std::printf("}\n");
}
