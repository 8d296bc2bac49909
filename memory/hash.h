#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace memlane {

/// 64-bit checksum (XXH3) of bytes: finds damage, not malice.
std::uint64_t checksum(std::span<const std::byte> bytes);

/// A 128-bit fingerprint (XXH3) of a sequence of parts. Each part is hashed with its length, so parts cannot run into
/// each other.
class Fingerprint {
 public:
  Fingerprint();
  ~Fingerprint();
  Fingerprint(Fingerprint&&) noexcept;
  Fingerprint& operator=(Fingerprint&&) noexcept;

  Fingerprint& add(std::span<const std::byte> part);
  Fingerprint& add(std::string_view part);
  /// 32 hexadecimal digits.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace memlane
