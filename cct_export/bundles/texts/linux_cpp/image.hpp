// Images from files, as the model takes them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

struct Image {
  std::size_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;  // row by row, channels together, 0–255
};

// Returns the image in a binary PPM file (P6, 8 bits); throws std::runtime_error.
Image read_ppm(const std::filesystem::path& path);

// Returns the image with one channel: what Pillow's convert("L") gives.
Image grey(const Image& colour);

// Returns the image in another size, bilinearly and with antialiasing: what the model was
// trained on, and, to one grey level, what Pillow's resize(..., BILINEAR) gives.
Image resized(const Image& image, std::size_t height, std::size_t width);
