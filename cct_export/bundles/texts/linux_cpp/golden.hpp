// What the model has to answer, and how close is close enough.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

struct Golden {
  std::uint32_t height = 0, width = 0, channels = 0, classes = 0;
  std::uint32_t flips = 0;  // decided images that may have another best class
  double sqnr_db = 0;       // signal to noise ratio at least
  double agreement = 0;     // share of the decided images with the same best class at least
  double max_abs = 0;       // largest difference of a logit at most; 0 for no such bound
  std::vector<std::vector<std::uint8_t>> images;
  std::vector<std::vector<float>> logits;  // Keras' own
};

struct Judgement {
  double sqnr_db = 0, max_abs = 0, agreement = 0;
  std::size_t decided = 0;
  std::vector<std::string> failures;  // empty if the bounds are met
};

// Returns the content of golden.bin; throws std::runtime_error.
Golden read_golden(const std::filesystem::path& path);

// Compares the logits of this machine with those of Keras, by the bounds of the scheme.
Judgement judge(const Golden& golden, const std::vector<std::vector<float>>& found);
