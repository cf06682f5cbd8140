// The SHA-256 of a file, which C++ has no function for.

#pragma once

#include <filesystem>
#include <string>

// Returns the hexadecimal SHA-256 of a file's content.
std::string sha256(const std::filesystem::path& path);
