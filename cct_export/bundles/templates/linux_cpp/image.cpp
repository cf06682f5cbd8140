#include "image.hpp"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <fstream>
#include <stdexcept>
#include <string>

namespace {

constexpr std::size_t kMaxPixels = std::size_t{1} << 28;

// Filter weights of one output pixel, for the input pixels of a line from `first` on.
struct Window {
  std::size_t first;
  std::vector<double> weights;
};

// Returns the windows that interpolate between the two nearest pixels of a line.
std::vector<Window> nearest_two(std::size_t from, std::size_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double last = static_cast<double>(from - 1);
  std::vector<Window> result;
  for (std::size_t index = 0; index < to; ++index) {
    const double centre = (static_cast<double>(index) + 0.5) * scale - 0.5;
    const double place = std::clamp(centre, 0.0, last);
    const double share = place - std::floor(place);
    Window window{static_cast<std::size_t>(place), {1.0 - share}};
    if (share > 0) window.weights.push_back(share);
    result.push_back(std::move(window));
  }
  return result;
}

// Returns the windows of a triangle filter that resizes a line from `from` to `to` pixels.
std::vector<Window> windows(std::size_t from, std::size_t to) {
  const double scale = static_cast<double>(from) / static_cast<double>(to);
  const double support = std::max(scale, 1.0);  // antialiasing: when shrinking, all pixels count
  std::vector<Window> result;
  for (std::size_t index = 0; index < to; ++index) {
    const double centre = (static_cast<double>(index) + 0.5) * scale;
    const auto first = static_cast<std::size_t>(std::max(centre - support + 0.5, 0.0));
    const auto end = std::min(static_cast<std::size_t>(centre + support + 0.5), from);
    Window window{first, {}};
    double sum = 0;
    for (std::size_t pixel = first; pixel < end; ++pixel) {
      const double distance = std::abs(static_cast<double>(pixel) + 0.5 - centre) / support;
      window.weights.push_back(std::max(1.0 - distance, 0.0));
      sum += window.weights.back();
    }
    for (double& weight : window.weights) weight /= sum;
    result.push_back(std::move(window));
  }
  return result;
}

// An image whose pixels are not rounded yet.
struct Plane {
  std::size_t height, width, channels;
  std::vector<double> values;
};

// Returns the image with its lines resized, transposed: applied twice, it resizes the image.
Plane transposed_and_resized(const Plane& image, std::size_t width, bool antialias) {
  Plane result{width, image.height, image.channels, {}};
  result.values.resize(result.height * result.width * result.channels);
  const std::vector<Window> columns =
      antialias ? windows(image.width, width) : nearest_two(image.width, width);
  for (std::size_t line = 0; line < image.height; ++line) {
    for (std::size_t index = 0; index < width; ++index) {
      for (std::size_t channel = 0; channel < image.channels; ++channel) {
        double sum = 0;
        std::size_t value = (line * image.width + columns[index].first) * image.channels + channel;
        for (double weight : columns[index].weights) {
          sum += weight * image.values[value];
          value += image.channels;
        }
        // Pillow rounds after each direction.
        result.values[(index * result.width + line) * result.channels + channel] =
            antialias ? std::floor(sum + 0.5) : sum;
      }
    }
  }
  return result;
}

// Returns the largest centred part of an image that has another aspect ratio.
Image cropped(const Image& image, std::size_t height, std::size_t width) {
  const std::size_t fitting_rows = (2 * image.width * height + width) / (2 * width);
  const std::size_t fitting_columns = (2 * image.height * width + height) / (2 * height);
  const std::size_t rows = std::min(image.height, std::max<std::size_t>(1, fitting_rows));
  const std::size_t columns = std::min(image.width, std::max<std::size_t>(1, fitting_columns));
  const std::size_t top = (image.height - rows) / 2, left = (image.width - columns) / 2;
  Image result{rows, columns, image.channels, {}};
  for (std::size_t row = top; row < top + rows; ++row) {
    const auto first = image.pixels.begin() +
                       static_cast<std::ptrdiff_t>((row * image.width + left) * image.channels);
    result.pixels.insert(result.pixels.end(), first,
                         first + static_cast<std::ptrdiff_t>(columns * image.channels));
  }
  return result;
}

// Returns the next number of a PPM header, skipping whitespace and comments.
std::size_t number(std::istream& file) {
  while (std::isspace(file.peek()) || file.peek() == '#') {
    if (file.get() == '#') file.ignore(1 << 16, '\n');
  }
  std::size_t value = 0;
  if (!(file >> value)) throw std::runtime_error("its header is invalid");
  return value;
}

}  // namespace

Image read_ppm(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path.string() + ": cannot be read");
  if (file.get() != 'P' || file.get() != '6') {
    throw std::runtime_error(path.string() + ": not a binary PPM file (P6)");
  }
  Image image;
  image.channels = 3;
  try {
    image.width = number(file);
    image.height = number(file);
    if (number(file) != 255) throw std::runtime_error("it does not have 8 bits per channel");
    file.get();
    const bool empty = image.width == 0 || image.height == 0;
    if (empty || image.width > kMaxPixels / image.height) {
      throw std::runtime_error("it declares an invalid size");
    }
    image.pixels.resize(image.width * image.height * 3);
    const auto size = static_cast<std::streamsize>(image.pixels.size());
    file.read(reinterpret_cast<char*>(image.pixels.data()), size);
    if (file.gcount() != size) throw std::runtime_error("it is truncated");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(path.string() + ": " + error.what());
  }
  return image;
}

Image grey(const Image& colour) {
  Image result{colour.height, colour.width, 1, {}};
  for (std::size_t pixel = 0; pixel < colour.pixels.size(); pixel += 3) {
    const std::uint32_t sum = 19595u * colour.pixels[pixel] + 38470u * colour.pixels[pixel + 1] +
                              7471u * colour.pixels[pixel + 2] + 0x8000u;
    result.pixels.push_back(static_cast<std::uint8_t>(sum >> 16));
  }
  return result;
}

Image resized(const Image& image, std::size_t height, std::size_t width, Resize resize) {
  if (image.height == height && image.width == width) return image;
  const Image part = resize.crop ? cropped(image, height, width) : image;
  const Plane plane{part.height, part.width, part.channels,
                    std::vector<double>(part.pixels.begin(), part.pixels.end())};
  const Plane lines = transposed_and_resized(plane, width, resize.antialias);
  const Plane result = transposed_and_resized(lines, height, resize.antialias);
  Image pixels{height, width, part.channels, {}};
  for (double value : result.values) {
    pixels.pixels.push_back(static_cast<std::uint8_t>(value + 0.5));
  }
  return pixels;
}
