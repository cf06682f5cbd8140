#include "golden.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <numeric>
#include <set>
#include <sstream>
#include <stdexcept>

namespace {

using Row = std::vector<double>;

template <typename Value>
Value read(std::istream& file) {
  Value value{};
  file.read(reinterpret_cast<char*>(&value), sizeof value);
  return value;
}

// Returns the logits minus their mean, which a softmax does not see.
Row centred(const std::vector<float>& logits) {
  const double sum = std::accumulate(logits.begin(), logits.end(), 0.0);
  const double mean = sum / static_cast<double>(logits.size());
  Row made;
  for (float logit : logits) made.push_back(logit - mean);
  return made;
}

std::size_t best(const std::vector<float>& logits) {
  return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

// Returns by how much the best logit is larger than the next.
double margin(std::vector<float> logits) {
  std::partial_sort(logits.begin(), logits.begin() + 2, logits.end(), std::greater<>());
  return static_cast<double>(logits[0]) - logits[1];
}

bool one_class(const std::vector<std::vector<float>>& logits) {
  std::set<std::size_t> classes;
  for (const auto& row : logits) classes.insert(best(row));
  return classes.size() == 1;
}

std::string text(const char* what, double value, const char* than, double bound) {
  std::ostringstream said;
  said.precision(4);
  said << what << " is " << value << than << bound;
  return said.str();
}

}  // namespace

Golden read_golden(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[8] = {};
  file.read(magic, sizeof magic);
  if (!file || std::memcmp(magic, "CCTGOLD1", sizeof magic) != 0) {
    throw std::runtime_error(path.string() + ": no file of golden images");
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
  if (!file || golden.classes < 2) throw std::runtime_error(path.string() + ": it is broken");
  return golden;
}

Judgement judge(const Golden& golden, const std::vector<std::vector<float>>& found) {
  Judgement made;
  double signal = 0, noise = 0;
  std::size_t same = 0;
  bool finite = true;
  for (std::size_t image = 0; image < found.size(); ++image) {
    if (found[image].size() != golden.classes) {
      made.failures.push_back("the model gives another number of logits");
      return made;
    }
    const Row wanted = centred(golden.logits[image]), given = centred(found[image]);
    for (std::size_t at = 0; at < wanted.size(); ++at) {
      signal += wanted[at] * wanted[at];
      noise += (wanted[at] - given[at]) * (wanted[at] - given[at]);
      const double difference =
          std::abs(static_cast<double>(golden.logits[image][at]) - found[image][at]);
      made.max_abs = std::max(made.max_abs, difference);
      finite = finite && std::isfinite(found[image][at]);
    }
  }
  // An image whose two best logits lie closer together than the error that the scheme may have
  // can go either way.
  const double count = static_cast<double>(found.size()) * golden.classes;
  const double allowed = std::sqrt(signal / count) * std::pow(10.0, -golden.sqnr_db / 20);
  for (std::size_t image = 0; image < found.size(); ++image) {
    if (margin(golden.logits[image]) <= allowed) continue;
    ++made.decided;
    if (best(golden.logits[image]) == best(found[image])) ++same;
  }
  made.sqnr_db = noise > 0 ? 10 * std::log10(signal / noise)
                           : std::numeric_limits<double>::infinity();
  made.agreement = made.decided > 0 ? static_cast<double>(same) / static_cast<double>(made.decided)
                                    : 1.0;

  if (!finite) made.failures.push_back("the logits hold NaN or infinity");
  if (one_class(found) && !one_class(golden.logits)) {
    made.failures.push_back("it answers one class for every image");
  }
  // "not (reached)", so that a NaN fails.
  if (!(made.sqnr_db >= golden.sqnr_db)) {
    made.failures.push_back(text("SQNR in dB", made.sqnr_db, ", below ", golden.sqnr_db));
  }
  if (made.decided == 0 && golden.max_abs == 0) {
    made.failures.push_back("no image has a best class that stands out");
  }
  if (golden.max_abs > 0 && !(made.max_abs <= golden.max_abs)) {
    made.failures.push_back(
        text("the largest difference", made.max_abs, ", above ", golden.max_abs));
  }
  if (made.agreement < golden.agreement && made.decided - same > golden.flips) {
    made.failures.push_back(text("top-1 agreement", made.agreement, ", below ", golden.agreement));
  }
  return made;
}
