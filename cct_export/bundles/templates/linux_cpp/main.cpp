// Classifies images, or verifies numerical parity with the Keras model on this machine.

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
#include <stdexcept>
#include <string>
#include <vector>

#include "classifier.hpp"
#include "contract.hpp"
#include "golden.hpp"
#include "image.hpp"
#include "output.hpp"
#include "sha256.hpp"

namespace {

namespace fs = std::filesystem;
using Pixels = std::vector<std::uint8_t>;

constexpr const char* kUsage =
    "usage: classify [--threads N] IMAGE…     print the top five classes of each image\n"
    "       classify [--threads N] --selftest  verify parity with Keras and measure latency\n"
    "IMAGE is a binary PPM file (P6) of any size, or a file with only the bytes of the input.\n";

// Whether a code point controls a terminal: control characters, separators of lines, and what turns
// the direction of writing or is invisible.
bool controls(unsigned point) {
  return point < 0x20 || (point >= 0x7F && point < 0xA0) || (point >= 0x200B && point <= 0x200F) ||
         (point >= 0x2028 && point <= 0x202E) || (point >= 0x2060 && point <= 0x206F);
}

// Returns text with ? in place of what controls a terminal, and of every byte that is no UTF-8.
std::string printable(const std::string& text) {
  std::string shown;
  for (std::size_t i = 0; i < text.size();) {
    const unsigned lead = static_cast<unsigned char>(text[i]);
    std::size_t size = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    unsigned point = size == 1 ? lead : lead & (0x7FU >> size);
    bool valid = (lead < 0x80 || lead >= 0xC2) && lead < 0xF5 && i + size <= text.size();
    for (std::size_t k = 1; valid && k < size; ++k) {
      const unsigned next = static_cast<unsigned char>(text[i + k]);
      valid = (next & 0xC0U) == 0x80;
      point = point << 6 | (next & 0x3FU);
    }
    if (!valid) size = 1;
    shown += valid && !controls(point) ? text.substr(i, size) : "?";
    i += size;
  }
  return shown;
}

// Returns the folder of this program, which holds the model too.
fs::path program_folder() { return fs::read_symlink("/proc/self/exe").parent_path(); }

std::vector<std::string> read_labels(const fs::path& path) {
  std::ifstream file(path);
  std::vector<std::string> labels;
  for (std::string line; std::getline(file, line);) labels.push_back(line);
  return labels;
}

// Returns the pixels of a file, preprocessed for the model.
Pixels read_pixels(const fs::path& path, const Classifier& model) {
  std::ifstream file(path, std::ios::binary);
  const bool ppm = file.get() == 'P' && file.get() == '6';
  if (!ppm && fs::is_regular_file(path) && fs::file_size(path) == model.size()) {
    file.clear();
    file.seekg(0);
    return Pixels(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  Image image = read_ppm(path);
  if (model.channels() == 1) image = grey(image);
  return resized(image, model.height(), model.width(), kResize).pixels;
}

void print_top(const std::string& name, const std::vector<float>& logits,
               const std::vector<std::string>& labels) {
  const std::vector<double> scores = probabilities(logits);
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto top = std::min<std::size_t>(5, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(top), order.end(),
                    [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  std::printf("%s\n", printable(name).c_str());
  for (std::size_t rank = 0; rank < top; ++rank) {
    const std::size_t index = order[rank];
    std::printf("  %6.2f %%  %s\n", 100 * scores[index], printable(labels.at(index)).c_str());
  }
}

// Prints the latency of one image over at least a hundred runs and one second.
void print_latency(Classifier& model, const Pixels& pixels) {
  using Clock = std::chrono::steady_clock;
  for (int warmup = 0; warmup < 20; ++warmup) model.logits(pixels);
  std::vector<double> times_ms;
  const auto first_start = Clock::now();
  while (times_ms.size() < 100 || Clock::now() - first_start < std::chrono::seconds(1)) {
    const auto start = Clock::now();
    model.logits(pixels);
    times_ms.push_back(std::chrono::duration<double, std::milli>(Clock::now() - start).count());
  }
  std::sort(times_ms.begin(), times_ms.end());
  const auto quantile = [&](double share) {
    const double rank = std::ceil(share * static_cast<double>(times_ms.size()));
    return times_ms[static_cast<std::size_t>(rank) - 1];
  };
  std::printf("latency: median %.3f ms, p90 %.3f ms, %zu runs\n", quantile(0.5), quantile(0.9),
              times_ms.size());
}

int selftest(Classifier& model, const Golden& golden, std::size_t labels) {
  std::vector<std::vector<float>> logits;
  for (const Pixels& image : golden.images) logits.push_back(model.logits(image));
  Parity parity = compare(golden, logits);
  if (labels != std::max<std::size_t>(golden.classes, 2)) {  // one value tells two classes apart
    parity.failures.push_back("labels.txt does not have one line per class");
  }
  std::printf("%s: %zu images, SQNR %.1f dB (bound %.0f dB), top-1 agreement %.4f of %zu decided, "
              "max |difference| %.2e\n",
              Classifier::engine().c_str(), logits.size(), parity.sqnr_db, golden.sqnr_db,
              parity.agreement, parity.decided, parity.max_abs);
  if (!parity.failures.empty()) {
    for (const auto& failure : parity.failures) std::printf("FAILED: %s\n", printable(failure).c_str());
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
    const fs::path folder = program_folder();
    for (const ModelFile& file : kModelFiles) {
      if (sha256(folder / file.name) != file.sha256) {
        throw std::runtime_error(std::string(file.name) +
                                 " has changed since this program was built: build it again");
      }
    }
    Classifier model(folder / kModelFiles[0].name, threads, kInput);
    const std::vector<std::string> labels = read_labels(folder / "labels.txt");
    if (arguments[0] == "--selftest") {
      return selftest(model, read_golden(folder / "golden.bin"), labels.size());
    }
    for (const std::string& name : arguments) {
      print_top(name, model.logits(read_pixels(name, model)), labels);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "classify: %s\n", printable(error.what()).c_str());
    return EXIT_FAILURE;
  }
  return EXIT_SUCCESS;
}
