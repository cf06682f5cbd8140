#include "classifier.hpp"

#include <net.h>

#include <algorithm>
#include <stdexcept>

struct Classifier::Engine {
  ncnn::Net net;
};

namespace {

void check(int failed, const char* what, const std::string& name) {
  if (failed != 0) throw std::runtime_error("ncnn cannot " + std::string(what) + " " + name);
}

// Returns an image with a plane of each channel, as ncnn takes it.
ncnn::Mat planes(const std::vector<std::uint8_t>& pixels, const Input& input) {
  ncnn::Mat image(static_cast<int>(input.width), static_cast<int>(input.height),
                  static_cast<int>(input.channels));
  for (std::size_t channel = 0; channel < input.channels; ++channel) {
    float* plane = image.channel(static_cast<int>(channel));
    for (std::size_t at = channel; at < pixels.size(); at += input.channels) *plane++ = pixels[at];
  }
  return image;
}

}  // namespace

std::string Classifier::engine() { return std::string("ncnn ") + NCNN_VERSION_STRING; }

Classifier::Classifier(const std::filesystem::path& model, int threads, const Input& input)
    : input_(input), engine_(std::make_unique<Engine>()) {
  ncnn::Net& net = engine_->net;
  net.opt.num_threads = threads;
  // By default ncnn computes in 16 bits where the processor can; the model was verified in 32.
  net.opt.use_fp16_packed = false;
  net.opt.use_fp16_storage = false;
  net.opt.use_fp16_arithmetic = false;
  net.opt.use_bf16_packed = false;
  net.opt.use_bf16_storage = false;
  const std::filesystem::path weights = std::filesystem::path(model).replace_extension(".bin");
  check(net.load_param(model.c_str()), "read", model.string());
  check(net.load_model(weights.c_str()), "read", weights.string());
  if (net.input_names().size() != 1 || net.output_names().size() != 1) {
    throw std::runtime_error("the model does not map one image to logits");
  }
}

Classifier::~Classifier() = default;

std::vector<float> Classifier::logits(const std::vector<std::uint8_t>& pixels) {
  if (pixels.size() != size()) {
    throw std::invalid_argument("an image has " + std::to_string(size()) + " bytes, not " +
                                std::to_string(pixels.size()));
  }
  const ncnn::Net& net = engine_->net;
  const char* const input = net.input_names().front();
  const char* const output = net.output_names().front();
  ncnn::Extractor run = net.create_extractor();
  check(run.input(input, planes(pixels, input_)), "take", input);
  ncnn::Mat values;
  check(run.extract(output, values), "compute", output);
  const float* const first = values;
  return {first, first + values.w};
}
