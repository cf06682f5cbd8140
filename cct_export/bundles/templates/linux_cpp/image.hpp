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

// How the model wants images of another size resized.
struct Resize {
  bool antialias;  // whether a smaller image is made of all pixels, not of the nearest four each
  bool crop;       // whether the centre of an image of another aspect ratio is used, not all of it
};

// Returns the image resized bilinearly; with antialiasing within one step of Pillow's
// resize(..., BILINEAR), without it as tf.image.resize does by default.
Image resized(const Image& image, std::size_t height, std::size_t width, Resize resize);
