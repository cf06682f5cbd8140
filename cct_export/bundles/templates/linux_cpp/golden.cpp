#include "golden.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <numeric>
#include <sstream>
#include <stdexcept>

#include "output.hpp"

namespace {

using Row = std::vector<double>;
using Rows = std::vector<std::vector<float>>;

template <typename Value>
Value read(std::istream& file) {
  Value value{};
  file.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

// Returns what decides: the logits minus their threshold, or their mean, which a softmax ignores.
Row signal_of(const std::vector<float>& logits) {
  const double sum = std::accumulate(logits.begin(), logits.end(), 0.0);
  const double mean = sum / static_cast<double>(logits.size());
  const double origin = is_binary(logits.size()) ? threshold() : mean;
  Row row;
  for (float logit : logits) row.push_back(logit - origin);
  return row;
}

// Returns the best class, or the decision of each logit.
std::vector<std::size_t> classes_of(const std::vector<float>& logits) {
  if (!is_binary(logits.size())) {
    const auto best = std::max_element(logits.begin(), logits.end());
    return {static_cast<std::size_t>(best - logits.begin())};
  }
  std::vector<std::size_t> decisions;
  for (float logit : logits) decisions.push_back(logit > threshold() ? 1 : 0);
  return decisions;
}

// Returns the difference of the two largest logits, or twice the distance of each from the
// threshold.
Row margins(std::vector<float> logits) {
  if (is_binary(logits.size())) {
    Row row = signal_of(logits);
    for (double& distance : row) distance = 2 * std::abs(distance);
    return row;
  }
  std::partial_sort(logits.begin(), logits.begin() + 2, logits.end(), std::greater<>());
  return {static_cast<double>(logits[0]) - logits[1]};
}

bool constant(const Rows& logits) {
  return std::all_of(logits.begin(), logits.end(), [&](const std::vector<float>& row) {
    return classes_of(row) == classes_of(logits.front());
  });
}

bool finite(const std::vector<float>& logits) {
  return std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); });
}

std::string text(const char* figure, double value, const char* relation, double bound) {
  std::ostringstream stream;
  stream.precision(4);
  stream << figure << " is " << value << relation << bound;
  return stream.str();
}

// Adds the bounds that the figures miss; several: whether decided images have several classes.
void judge(const Golden& golden, const Rows& candidate, std::size_t agreeing, bool several,
           Parity& parity) {
  auto& failures = parity.failures;
  if (!std::all_of(candidate.begin(), candidate.end(), finite)) {
    failures.push_back("the logits hold NaN or infinity");
  }
  if (several && constant(candidate)) {
    failures.push_back("the model predicts one class for every image");
  }
  // Not "<": a NaN has to fail.
  if (!(parity.sqnr_db >= golden.sqnr_db)) {
    failures.push_back(text("SQNR in dB", parity.sqnr_db, ", below ", golden.sqnr_db));
  }
  if (parity.decided == 0 && golden.max_abs == 0) failures.push_back("no image is decided");
  if (golden.max_abs > 0 && !(parity.max_abs <= golden.max_abs)) {
    failures.push_back(text("max |difference|", parity.max_abs, ", above ", golden.max_abs));
  }
  if (parity.agreement < golden.agreement && parity.decided - agreeing > golden.flips) {
    failures.push_back(text("top-1 agreement", parity.agreement, ", below ", golden.agreement));
  }
}

}  // namespace

Golden read_golden(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[8] = {};
  file.read(magic, sizeof magic);
  if (!file || std::memcmp(magic, "CCTGOLD1", sizeof magic) != 0) {
    throw std::runtime_error(path.string() + ": not a file of golden inputs");
  }
  Golden golden;
  const auto images = read<std::uint32_t>(file);
  golden.height = read<std::uint32_t>(file);
  golden.width = read<std::uint32_t>(file);
  golden.channels = read<std::uint32_t>(file);
  golden.classes = read<std::uint32_t>(file);
  golden.flips = read<std::uint32_t>(file);
  golden.sqnr_db = read<double>(file);
  golden.agreement = read<double>(file);
  golden.max_abs = read<double>(file);
  const std::size_t size = std::size_t{golden.height} * golden.width * golden.channels;
  for (std::uint32_t index = 0; index < images && file; ++index) {
    std::vector<std::uint8_t> pixels(size);
    file.read(reinterpret_cast<char*>(pixels.data()), static_cast<std::streamsize>(size));
    golden.images.push_back(std::move(pixels));
  }
  for (std::uint32_t index = 0; index < images && file; ++index) {
    std::vector<float> row(golden.classes);
    file.read(reinterpret_cast<char*>(row.data()),
              static_cast<std::streamsize>(row.size() * sizeof(float)));
    golden.logits.push_back(std::move(row));
  }
  if (!file || golden.classes < 1) throw std::runtime_error(path.string() + ": truncated");
  return golden;
}

Parity compare(const Golden& golden, const Rows& candidate) {
  Parity parity;
  double signal_power = 0, noise_power = 0;
  for (std::size_t image = 0; image < candidate.size(); ++image) {
    if (candidate[image].size() != golden.classes) {
      parity.failures.push_back("the model returns another number of logits");
      return parity;
    }
    const Row signal = signal_of(golden.logits[image]), noisy = signal_of(candidate[image]);
    for (std::size_t index = 0; index < signal.size(); ++index) {
      const double noise = signal[index] - noisy[index];
      signal_power += signal[index] * signal[index];
      noise_power += noise * noise;
      const double difference =
          std::abs(static_cast<double>(golden.logits[image][index]) - candidate[image][index]);
      parity.max_abs = std::max(parity.max_abs, difference);
    }
  }
  // An image whose two best logits differ by less than the error that the SQNR bound allows is not
  // decided: either class may come out.
  const double count = static_cast<double>(candidate.size()) * golden.classes;
  const double allowed_error = std::sqrt(signal_power / count) * std::pow(10, -golden.sqnr_db / 20);
  std::size_t agreeing = 0;
  bool several = false;
  std::map<std::size_t, std::size_t> first_classes;  // by decision
  for (std::size_t image = 0; image < candidate.size(); ++image) {
    const Row clear = margins(golden.logits[image]);
    const auto expected = classes_of(golden.logits[image]), found = classes_of(candidate[image]);
    for (std::size_t index = 0; index < clear.size(); ++index) {
      if (clear[index] <= allowed_error) continue;
      ++parity.decided;
      if (expected[index] == found[index]) ++agreeing;
      if (first_classes.emplace(index, expected[index]).first->second != expected[index]) {
        several = true;
      }
    }
  }
  parity.sqnr_db = noise_power > 0 ? 10 * std::log10(signal_power / noise_power)
                                   : std::numeric_limits<double>::infinity();
  parity.agreement = 1.0;
  if (parity.decided > 0) {
    parity.agreement = static_cast<double>(agreeing) / static_cast<double>(parity.decided);
  }
  judge(golden, candidate, agreeing, several, parity);
  return parity;
}
