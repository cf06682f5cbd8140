#include "output.hpp"

#include <algorithm>
#include <cmath>
#include <string>

namespace {

// Of the model's last operator: none, softmax or sigmoid.
const std::string kActivation = MODEL_ACTIVATION;

}  // namespace

bool is_binary(std::size_t values) { return values == 1 || kActivation == "sigmoid"; }

double threshold() { return kActivation == "none" ? 0.0 : 0.5; }

std::vector<double> probabilities(const std::vector<float>& values) {
  std::vector<double> result(values.begin(), values.end());
  if (kActivation == "none" && values.size() == 1) {
    result[0] = 1 / (1 + std::exp(-result[0]));
  } else if (kActivation == "none") {
    const double maximum = *std::max_element(result.begin(), result.end());
    double sum = 0;
    for (double& value : result) sum += value = std::exp(value - maximum);
    for (double& value : result) value /= sum;
  }
  if (result.size() == 1) result.insert(result.begin(), 1 - result[0]);
  return result;
}
