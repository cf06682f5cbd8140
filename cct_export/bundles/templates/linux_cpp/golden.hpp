// Golden inputs, and numerical parity of this machine's logits with those of Keras.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

struct Golden {
  std::uint32_t height = 0, width = 0, channels = 0, classes = 0;
  std::uint32_t flips = 0;  // decided images that may have another top-1 class
  double sqnr_db = 0;       // lower bound on the SQNR
  double agreement = 0;     // lower bound on the top-1 agreement of decided images
  double max_abs = 0;       // upper bound on the difference of a logit; 0 for no such bound
  std::vector<std::vector<std::uint8_t>> images;
  std::vector<std::vector<float>> logits;  // of Keras
};

struct Parity {
  double sqnr_db = 0, max_abs = 0, agreement = 0;
  std::size_t decided = 0;  // images, or decisions where each value is one
  std::vector<std::string> failures;  // bounds that are missed; empty if there is parity
};

// Returns the content of golden.bin; throws std::runtime_error.
Golden read_golden(const std::filesystem::path& path);

// Compares the logits that the model returns for the golden inputs with those of Keras.
Parity compare(const Golden& golden, const std::vector<std::vector<float>>& candidate);
