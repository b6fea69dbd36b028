// Text in arrays of characters: what shared memory and NetHack's own structures hold.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>

namespace pbm {

// Copies all of a text and its terminating NUL. Throws std::length_error, naming `what`, when it does not fit.
template <std::size_t N>
void copy_text(char (&to)[N], const std::string& from, const char* what) {
  if (from.size() >= N) {
    throw std::length_error(std::string(what) + " is longer than " + std::to_string(N - 1) + " bytes");
  }
  std::copy_n(from.c_str(), from.size() + 1, to);
}

// Copies what fits, and a terminating NUL.
template <std::size_t N>
void copy_beginning(std::array<char, N>& to, std::string_view from) noexcept {
  to[from.copy(to.data(), N - 1)] = '\0';
}

}  // namespace pbm
