// The model on its engine: pixels in, logits out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

// An image as the model takes it; contract.hpp has that of this model.
struct Input {
  std::size_t height, width, channels;
  bool channels_first;  // a plane of each channel, not the channels of each pixel
};

class Classifier {
 public:
  // Opens the file of a model; throws std::runtime_error with the engine's message.
  Classifier(const std::filesystem::path& model, int threads, const Input& input);
  ~Classifier();
  Classifier(const Classifier&) = delete;
  Classifier& operator=(const Classifier&) = delete;

  // Returns the logits of one image: height × width × channels bytes, 0–255, row by row.
  std::vector<float> logits(const std::vector<std::uint8_t>& pixels);

  std::size_t height() const { return input_.height; }
  std::size_t width() const { return input_.width; }
  std::size_t channels() const { return input_.channels; }
  std::size_t size() const { return height() * width() * channels(); }
  // Returns the name and the version of the engine.
  static std::string engine();

 private:
  struct Engine;

  Input input_;
  std::unique_ptr<Engine> engine_;
};
