// Training of the convolutional network of arXiv 2501.15403 by backpropagation, written from the description alone.
//
// It shares no code with mgdcircuits, so that training times of the two can be compared: 3 x 3 kernels in three pairs with tanh,
// each pair followed by maxima of 2 x 2, then three dense layers; Glorot-uniform weights, biases 0, cross entropy with a target of
// 1 for the right class and 0.01 for the others, batches of 100 drawn with replacement, plain steps of the mean gradient.
//
// Arguments: d, seed, eta, the goal (right answers of 10,000), the largest number of iterations, and a folder with the bytes of
// train_x, train_y, test_x, test_y. It prints iterations and right answers, every 5 % of the iterations so far (at least 5).
// The samples of a batch are innermost in every array.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int batch = 100, classes = 10, pixels = 28 * 28;
constexpr float wrong_target = 0.01f;
using Floats = std::vector<float>;
using Bytes = std::vector<unsigned char>;

std::mt19937_64 random_numbers;

// Weights and biases of `outputs` sums over `inputs` (times `area` positions of a kernel), and their gradients.
struct Layer {
    int inputs, outputs;
    Floats w, b, gw, gb;
    Layer(int inputs, int outputs, int area)
        : inputs(inputs), outputs(outputs), w(inputs * outputs * area), b(outputs), gw(w.size()), gb(b.size()) {
        const float limit = std::sqrt(6.0f / (area * (inputs + outputs)));
        std::uniform_real_distribution<float> drawn(-limit, limit);
        for (float& weight : w) weight = drawn(random_numbers);
    }
    void forget() {
        std::fill(gw.begin(), gw.end(), 0.0f);
        std::fill(gb.begin(), gb.end(), 0.0f);
    }
    void step(float eta) {
        for (size_t k = 0; k < w.size(); ++k) w[k] -= eta * gw[k];
        for (size_t k = 0; k < b.size(); ++k) b[k] -= eta * gb[k];
    }
};

// sum += w * a, for the samples of a batch.
void add(float* sum, float w, const float* a) {
    for (int n = 0; n < batch; ++n) sum[n] += w * a[n];
}

float dot(const float* a, const float* b) {
    float sum = 0;
    for (int n = 0; n < batch; ++n) sum += a[n] * b[n];
    return sum;
}

float total(const float* a) {
    float sum = 0;
    for (int n = 0; n < batch; ++n) sum += a[n];
    return sum;
}

struct Convolution : Layer {
    int side;
    Floats x, dx;  // activities, and the slopes of the cost along them
    Convolution(int inputs, int outputs, int side)
        : Layer(inputs, outputs, 9), side(side), x(outputs * side * side * batch), dx(x.size()) {}

    // Calls f(number of the weight, unit of the input) for every synapse of a unit.
    template <class F>
    void synapses(int o, int row, int column, F f) const {
        for (int i = 0; i < inputs; ++i)
            for (int p = 0; p < 3; ++p)
                for (int q = 0; q < 3; ++q) {
                    const int v = row + p - 1, u = column + q - 1;
                    if (v >= 0 && u >= 0 && v < side && u < side)
                        f(((o * inputs + i) * 3 + p) * 3 + q, (i * side + v) * side + u);
                }
    }

    void forward(const float* input) {
        for (int o = 0, unit = 0; o < outputs; ++o)
            for (int row = 0; row < side; ++row)
                for (int column = 0; column < side; ++column, ++unit) {
                    float sum[batch];
                    std::fill(sum, sum + batch, b[o]);
                    synapses(o, row, column, [&](int k, int from) { add(sum, w[k], input + from * batch); });
                    for (int n = 0; n < batch; ++n) x[unit * batch + n] = std::tanh(sum[n]);
                }
    }

    // From dx the gradients, and the slopes along the input, if they are wanted.
    void backward(const float* input, Floats* slopes) {
        forget();
        if (slopes) std::fill(slopes->begin(), slopes->end(), 0.0f);
        for (size_t k = 0; k < x.size(); ++k) dx[k] *= 1 - x[k] * x[k];
        for (int o = 0, unit = 0; o < outputs; ++o)
            for (int row = 0; row < side; ++row)
                for (int column = 0; column < side; ++column, ++unit) {
                    const float* slope = &dx[unit * batch];
                    gb[o] += total(slope);
                    synapses(o, row, column, [&](int k, int from) {
                        gw[k] += dot(slope, input + from * batch);
                        if (slopes) add(&(*slopes)[from * batch], w[k], slope);
                    });
                }
    }
};

struct Pool {
    int channels, side;
    Floats x, dx;
    std::vector<int> winner;
    Pool(int channels, int side)
        : channels(channels), side(side), x(channels * (side / 2) * (side / 2) * batch), dx(x.size()), winner(x.size()) {}

    void forward(const Floats& input) {
        const int half = side / 2;
        for (int c = 0, unit = 0; c < channels; ++c)
            for (int row = 0; row < half; ++row)
                for (int column = 0; column < half; ++column, ++unit)
                    for (int n = 0; n < batch; ++n) {
                        int best = -1;
                        for (int k = 0; k < 4; ++k) {
                            const int at = ((c * side + 2 * row + k / 2) * side + 2 * column + k % 2) * batch + n;
                            if (best < 0 || input[at] > input[best]) best = at;  // the first of equal ones
                        }
                        x[unit * batch + n] = input[best];
                        winner[unit * batch + n] = best;
                    }
    }
    void backward(Floats& slopes) const {
        std::fill(slopes.begin(), slopes.end(), 0.0f);
        for (size_t k = 0; k < dx.size(); ++k) slopes[winner[k]] += dx[k];
    }
};

struct Dense : Layer {
    bool tanh;
    Floats x, dx;
    Dense(int inputs, int outputs, bool tanh)
        : Layer(inputs, outputs, 1), tanh(tanh), x(outputs * batch), dx(x.size()) {}

    void forward(const Floats& input) {
        for (int o = 0; o < outputs; ++o) {
            float* sum = &x[o * batch];
            std::fill(sum, sum + batch, b[o]);
            for (int i = 0; i < inputs; ++i) add(sum, w[o * inputs + i], &input[i * batch]);
            if (tanh)
                for (int n = 0; n < batch; ++n) sum[n] = std::tanh(sum[n]);
        }
    }
    void backward(const Floats& input, Floats& slopes) {
        forget();
        std::fill(slopes.begin(), slopes.end(), 0.0f);
        if (tanh)
            for (size_t k = 0; k < x.size(); ++k) dx[k] *= 1 - x[k] * x[k];
        for (int o = 0; o < outputs; ++o) {
            const float* slope = &dx[o * batch];
            gb[o] = total(slope);
            for (int i = 0; i < inputs; ++i) {
                gw[o * inputs + i] = dot(slope, &input[i * batch]);
                add(&slopes[i * batch], w[o * inputs + i], slope);
            }
        }
    }
};

struct Network {
    std::vector<Convolution> conv;
    std::vector<Pool> pool;
    std::vector<Dense> dense;
    Floats image = Floats(pixels * batch);

    explicit Network(int d) {
        for (int k = 0, inputs = 1, side = 28; k < 3; ++k, side /= 2) {
            const int outputs = d << k;
            conv.emplace_back(inputs, outputs, side);
            conv.emplace_back(outputs, outputs, side);
            pool.emplace_back(outputs, side);
            inputs = outputs;
        }
        dense.emplace_back(4 * d * 3 * 3, 4 * d, true);
        dense.emplace_back(4 * d, 4 * d, true);
        dense.emplace_back(4 * d, classes, false);
    }
    void show(int n, const unsigned char* picture) {
        for (int k = 0; k < pixels; ++k) image[k * batch + n] = picture[k] / 255.0f;
    }
    void forward() {
        const Floats* input = &image;
        for (int k = 0; k < 3; ++k) {
            conv[2 * k].forward(input->data());
            conv[2 * k + 1].forward(conv[2 * k].x.data());
            pool[k].forward(conv[2 * k + 1].x);
            input = &pool[k].x;
        }
        for (Dense& layer : dense) {
            layer.forward(*input);
            input = &layer.x;
        }
    }
    // The slopes of the mean cost along the outputs, and back from there.
    void backward(const int* labels) {
        Dense& last = dense.back();
        for (int n = 0; n < batch; ++n) {
            float sum = 0, largest = last.x[n];
            for (int o = 1; o < classes; ++o) largest = std::max(largest, last.x[o * batch + n]);
            for (int o = 0; o < classes; ++o) sum += std::exp(last.x[o * batch + n] - largest);
            for (int o = 0; o < classes; ++o) {
                const float target = o == labels[n] ? 1.0f : wrong_target;
                const float targets = 1.0f + (classes - 1) * wrong_target;
                last.dx[o * batch + n] = (targets * std::exp(last.x[o * batch + n] - largest) / sum - target) / batch;
            }
        }
        dense[2].backward(dense[1].x, dense[1].dx);
        dense[1].backward(dense[0].x, dense[0].dx);
        dense[0].backward(pool[2].x, pool[2].dx);
        for (int k = 2; k >= 0; --k) {
            pool[k].backward(conv[2 * k + 1].dx);
            conv[2 * k + 1].backward(conv[2 * k].x.data(), &conv[2 * k].dx);
            conv[2 * k].backward(k ? pool[k - 1].x.data() : image.data(), k ? &pool[k - 1].dx : nullptr);
        }
    }
    void step(float eta) {
        for (Layer& layer : conv) layer.step(eta);
        for (Layer& layer : dense) layer.step(eta);
    }
    int answer(int n) const {
        const Floats& y = dense.back().x;
        int best = 0;
        for (int o = 1; o < classes; ++o)
            if (y[o * batch + n] > y[best * batch + n]) best = o;
        return best;
    }
};

Bytes read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        std::fprintf(stderr, "%s cannot be read\n", path.c_str());
        std::exit(2);
    }
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

}  // namespace

int main(int count, char** arguments) {
    if (count != 7) return 2;
    const int d = std::atoi(arguments[1]);
    random_numbers.seed(std::atoi(arguments[2]));
    const float eta = std::atof(arguments[3]);
    const int goal = std::atoi(arguments[4]), most = std::atoi(arguments[5]);
    const std::string folder = std::string(arguments[6]) + "/";
    const Bytes train_x = read(folder + "train_x"), train_y = read(folder + "train_y");
    const Bytes test_x = read(folder + "test_x"), test_y = read(folder + "test_y");
    std::uniform_int_distribution<size_t> any(0, train_y.size() - 1);
    Network network(d);
    for (int n = 0, row = 5; n < most;) {
        int labels[batch];
        for (int k = 0; k < batch; ++k) {
            const size_t sample = any(random_numbers);
            network.show(k, &train_x[sample * pixels]);
            labels[k] = train_y[sample];
        }
        network.forward();
        network.backward(labels);
        network.step(eta);
        if (++n < std::min(row, most)) continue;
        int right = 0;
        for (size_t first = 0; first + batch <= test_y.size(); first += batch) {
            for (int k = 0; k < batch; ++k) network.show(k, &test_x[(first + k) * pixels]);
            network.forward();
            for (int k = 0; k < batch; ++k) right += network.answer(k) == test_y[first + k];
        }
        std::printf("%d %d\n", n, right);
        if (right >= goal) break;
        row = n + std::max(5, n / 20);
    }
}
