// Image files and their preprocessing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <vector>

struct Image {
  std::size_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> pixels;  // row by row, channels last, 0–255
};

// Returns the image in a binary PPM file (P6, 8 bits); throws std::runtime_error.
Image read_ppm(const std::filesystem::path& path);

// Returns the image with one channel, equal to Pillow's convert("L").
Image grey(const Image& colour);

// Returns the image resized as in training: bilinearly, with antialiasing, within one step of
// Pillow's resize(..., BILINEAR).
Image resized(const Image& image, std::size_t height, std::size_t width);
