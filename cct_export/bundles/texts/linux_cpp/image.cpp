#include "image.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <stdexcept>
#include <string>

namespace {

constexpr std::size_t kMostPixels = std::size_t{1} << 28;

// How much the pixels from `first` on weigh in one pixel of a resized line.
struct Window {
  std::size_t first;
  std::vector<double> weights;
};

// Returns a window for each of `to` pixels of a line that had `from`.
std::vector<Window> windows(std::size_t from, std::size_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double reach = std::max(scale, 1.0);  // wide when shrinking: every pixel counts
  std::vector<Window> made;
  for (std::size_t index = 0; index < to; ++index) {
    const double centre = (static_cast<double>(index) + 0.5) * scale;
    const auto first = static_cast<std::size_t>(std::max(centre - reach + 0.5, 0.0));
    const auto end = std::min(static_cast<std::size_t>(centre + reach + 0.5), from);
    Window window{first, {}};
    double sum = 0;
    for (std::size_t pixel = first; pixel < end; ++pixel) {
      const double distance = std::abs(static_cast<double>(pixel) + 0.5 - centre) / reach;
      window.weights.push_back(std::max(1.0 - distance, 0.0));
      sum += window.weights.back();
    }
    for (double& weight : window.weights) weight /= sum;
    made.push_back(std::move(window));
  }
  return made;
}

// Returns the image with lines of another length, and lines and columns exchanged: twice that is
// the image in another size.
Image transposed_and_resized(const Image& image, std::size_t width) {
  Image made{width, image.height, image.channels, {}};
  made.pixels.resize(made.height * made.width * made.channels);
  const std::vector<Window> all = windows(image.width, width);
  for (std::size_t line = 0; line < image.height; ++line) {
    for (std::size_t index = 0; index < width; ++index) {
      for (std::size_t channel = 0; channel < image.channels; ++channel) {
        double sum = 0;
        std::size_t at = (line * image.width + all[index].first) * image.channels + channel;
        for (double weight : all[index].weights) {
          sum += weight * image.pixels[at];
          at += image.channels;
        }
        made.pixels[(index * made.width + line) * made.channels + channel] =
            static_cast<std::uint8_t>(sum + 0.5);
      }
    }
  }
  return made;
}

// Returns the next number of a PPM header, past white space and comments.
std::size_t number(std::istream& file) {
  while (std::isspace(file.peek()) || file.peek() == '#') {
    if (file.get() == '#') file.ignore(1 << 16, '\n');
  }
  std::size_t value = 0;
  if (!(file >> value)) throw std::runtime_error("its header is broken");
  return value;
}

}  // namespace

Image read_ppm(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  if (file.get() != 'P' || file.get() != '6') {
    throw std::runtime_error(path.string() + ": no binary PPM file (P6)");
  }
  Image image;
  image.channels = 3;
  try {
    image.width = number(file);
    image.height = number(file);
    if (number(file) != 255) throw std::runtime_error("it has not 8 bits per channel");
    file.get();
    const bool empty = image.width == 0 || image.height == 0;
    if (empty || image.width > kMostPixels / image.height) {
      throw std::runtime_error("its size is not plausible");
    }
    image.pixels.resize(image.width * image.height * 3);
    const auto size = static_cast<std::streamsize>(image.pixels.size());
    file.read(reinterpret_cast<char*>(image.pixels.data()), size);
    if (file.gcount() != size) throw std::runtime_error("it ends too early");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
  return image;
}

Image grey(const Image& colour) {
  Image made{colour.height, colour.width, 1, {}};
  for (std::size_t at = 0; at < colour.pixels.size(); at += 3) {
    const std::uint32_t sum = 19595u * colour.pixels[at] + 38470u * colour.pixels[at + 1] +
                              7471u * colour.pixels[at + 2] + 0x8000u;
    made.pixels.push_back(static_cast<std::uint8_t>(sum >> 16));
  }
  return made;
}

Image resized(const Image& image, std::size_t height, std::size_t width) {
  return transposed_and_resized(transposed_and_resized(image, width), height);
}
