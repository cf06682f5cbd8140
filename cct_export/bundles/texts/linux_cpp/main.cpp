// Classifies images, or proves that this machine computes what it should.

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <numeric>
#include <string>
#include <vector>

#include "classifier.hpp"
#include "golden.hpp"
#include "image.hpp"

namespace {

namespace fs = std::filesystem;
using Pixels = std::vector<std::uint8_t>;

constexpr const char* kUsage =
    "usage: classify [--threads N] IMAGE…     the five best classes of each image\n"
    "       classify [--threads N] --selftest  compares with Keras, and measures\n"
    "IMAGE is a binary PPM file (P6) of any size, or a file of just the bytes of the input.\n";

// Returns the folder of this program; the model lies beside it.
fs::path here() { return fs::read_symlink("/proc/self/exe").parent_path(); }

std::vector<std::string> read_labels(const fs::path& path) {
  std::ifstream file(path);
  std::vector<std::string> labels;
  for (std::string line; std::getline(file, line);) labels.push_back(line);
  return labels;
}

// Returns the pixels of a file, as the model takes them.
Pixels pixels_of(const fs::path& path, const Classifier& model) {
  std::ifstream file(path, std::ios::binary);
  const bool ppm = file.get() == 'P' && file.get() == '6';
  if (!ppm && fs::is_regular_file(path) && fs::file_size(path) == model.size()) {
    file.clear();
    file.seekg(0);
    return Pixels(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  Image image = read_ppm(path);
  if (model.channels() == 1) image = grey(image);
  return resized(image, model.height(), model.width()).pixels;
}

void print_best(const std::string& name, const std::vector<float>& logits,
                const std::vector<std::string>& labels) {
  const float highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - highest);
  std::vector<std::size_t> order(logits.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto count = std::min<std::size_t>(5, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](std::size_t a, std::size_t b) { return logits[a] > logits[b]; });
  std::printf("%s\n", name.c_str());
  for (std::size_t at = 0; at < count; ++at) {
    const double share = std::exp(static_cast<double>(logits[order[at]]) - highest) / sum;
    std::printf("  %6.2f %%  %s\n", 100 * share, labels.at(order[at]).c_str());
  }
}

// Runs one image again and again for a second, at least a hundred times; prints what it took.
void print_latency(Classifier& model, const Pixels& pixels) {
  using Clock = std::chrono::steady_clock;
  for (int run = 0; run < 20; ++run) model.logits(pixels);
  std::vector<double> took_ms;
  const auto start = Clock::now();
  while (took_ms.size() < 100 || Clock::now() - start < std::chrono::seconds(1)) {
    const auto begin = Clock::now();
    model.logits(pixels);
    took_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  }
  std::sort(took_ms.begin(), took_ms.end());
  const auto at = [&](double share) {
    const double rank = std::ceil(share * static_cast<double>(took_ms.size()));
    return took_ms[static_cast<std::size_t>(rank) - 1];
  };
  std::printf("latency: median %.3f ms, p90 %.3f ms, %zu runs\n", at(0.5), at(0.9), took_ms.size());
}

int selftest(Classifier& model, const Golden& golden, std::size_t labels) {
  std::vector<std::vector<float>> found;
  for (const Pixels& image : golden.images) found.push_back(model.logits(image));
  Judgement judgement = judge(golden, found);
  if (labels != golden.classes) {
    judgement.failures.push_back("labels.txt has too many or few lines");
  }
  std::printf("ONNX Runtime %s: %zu images, SQNR %.1f dB (at least %.0f), top-1 agreement %.4f of "
              "%zu decided, largest difference %.2e\n",
              Classifier::engine().c_str(), found.size(), judgement.sqnr_db, golden.sqnr_db,
              judgement.agreement, judgement.decided, judgement.max_abs);
  if (!judgement.failures.empty()) {
    for (const auto& failure : judgement.failures) std::printf("FAILED: %s\n", failure.c_str());
    return EXIT_FAILURE;
  }
  print_latency(model, golden.images.front());
  std::printf("PASSED\n");
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  int threads = 1;
  if (arguments.size() >= 2 && arguments[0] == "--threads") {
    threads = std::max(1, std::atoi(arguments[1].c_str()));
    arguments.erase(arguments.begin(), arguments.begin() + 2);
  }
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h") {
    std::fputs(kUsage, arguments.empty() ? stderr : stdout);
    return arguments.empty() ? 2 : EXIT_SUCCESS;
  }
  try {
    Classifier model(here() / "model.onnx", threads);
    const std::vector<std::string> labels = read_labels(here() / "labels.txt");
    if (arguments[0] == "--selftest") {
      return selftest(model, read_golden(here() / "golden.bin"), labels.size());
    }
    for (const std::string& name : arguments) {
      print_best(name, model.logits(pixels_of(name, model)), labels);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "classify: %s\n", error.what());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
