#include "sha256.hpp"

#include <array>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <vector>

namespace {

using Words = std::array<std::uint32_t, 8>;
constexpr std::size_t kBlock = 64;

std::uint32_t rotated(std::uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

// Returns the first 32 bits of the fraction of a number.
std::uint32_t fraction(long double number) {
  return static_cast<std::uint32_t>((number - std::floor(number)) * 4294967296.0L);
}

// Returns the first prime numbers.
std::vector<int> primes(std::size_t count) {
  std::vector<int> found;
  for (int number = 2; found.size() < count; ++number) {
    bool prime = true;
    for (int divisor : found) prime = prime && number % divisor != 0;
    if (prime) found.push_back(number);
  }
  return found;
}

// Updates the state with a block (FIPS 180-4, section 6.2.2).
void update(Words& state, const std::uint8_t* block, const std::vector<std::uint32_t>& constants) {
  std::array<std::uint32_t, kBlock> w{};
  for (std::size_t t = 0; t < kBlock; ++t) {
    if (t < 16) {
      for (std::size_t byte = 0; byte < 4; ++byte) w[t] = w[t] << 8 | block[4 * t + byte];
      continue;
    }
    const std::uint32_t x = w[t - 15], y = w[t - 2];
    w[t] = w[t - 16] + (rotated(x, 7) ^ rotated(x, 18) ^ x >> 3) + w[t - 7] +
           (rotated(y, 17) ^ rotated(y, 19) ^ y >> 10);
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (std::size_t t = 0; t < kBlock; ++t) {
    const std::uint32_t first = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) +
                                ((e & f) ^ (~e & g)) + constants[t] + w[t];
    const std::uint32_t second =
        (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
  }
  const Words next = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < next.size(); ++i) state[i] += next[i];
}

}  // namespace

std::string sha256(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::vector<std::uint8_t> bytes{std::istreambuf_iterator<char>(file), {}};
  const std::uint64_t bits = 8 * static_cast<std::uint64_t>(bytes.size());
  bytes.push_back(0x80);
  while (bytes.size() % kBlock != kBlock - 8) bytes.push_back(0);
  for (int shift = 56; shift >= 0; shift -= 8) {
    bytes.push_back(static_cast<std::uint8_t>(bits >> shift));
  }

  Words state{};
  std::vector<std::uint32_t> constants;
  for (int prime : primes(kBlock)) {
    const long double number = prime;
    if (constants.size() < state.size()) state[constants.size()] = fraction(std::sqrt(number));
    constants.push_back(fraction(std::cbrt(number)));
  }
  for (std::size_t at = 0; at < bytes.size(); at += kBlock) update(state, &bytes[at], constants);

  std::string text;
  for (std::uint32_t word : state) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
  }
  return text;
}
