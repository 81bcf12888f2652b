/* Tensors of the emulated cuDNN: their descriptors read, and their elements as float32. */
#include <cmath>
#include <cstring>

#include "cudnn_store.h"

namespace emulated_cudnn {

Tensor::Tensor(const Descriptor &d)
    : uid(d.one<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID)),
      alignment(d.one<int64_t>(CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT)),
      type(d.one<cudnnDataType_t>(CUDNN_ATTR_TENSOR_DATA_TYPE)),
      dims(d.all<int64_t>(CUDNN_ATTR_TENSOR_DIMENSIONS)),
      strides(d.all<int64_t>(CUDNN_ATTR_TENSOR_STRIDES)),
      on_host(d.one<bool>(CUDNN_ATTR_TENSOR_IS_BY_VALUE)),
      is_virtual(d.one<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL)) {
}

int64_t Tensor::elem_bytes() const {
    return type == CUDNN_DATA_DOUBLE ? 8 : type == CUDNN_DATA_FLOAT ? 4 : 2;
}

int64_t Tensor::extent_bytes() const {
    int64_t last = 0;
    for (size_t i = 0; i < dims.size(); i++) last += (dims[i] - 1) * strides[i];
    return (last + 1) * elem_bytes();
}

float round_to_bf16(float value) {
    uint32_t bits;
    if (std::isnan(value)) return value;
    memcpy(&bits, &value, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000u;
    memcpy(&value, &bits, sizeof bits);
    return value;
}

float Memory::load(const Tensor &t, int64_t offset) const {
    const void *base = device.at(t.uid);
    if (t.type == CUDNN_DATA_FLOAT) return static_cast<const float *>(base)[offset];
    uint32_t bits = (uint32_t) static_cast<const uint16_t *>(base)[offset] << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

void Memory::store(const Tensor &t, int64_t offset, float value) const {
    void *base = device.at(t.uid);
    if (t.type == CUDNN_DATA_FLOAT) {
        static_cast<float *>(base)[offset] = value;
        return;
    }
    uint32_t bits;
    value = round_to_bf16(value);
    memcpy(&bits, &value, sizeof bits);
    static_cast<uint16_t *>(base)[offset] = (uint16_t)(bits >> 16 | (std::isnan(value) ? 0x40 : 0));
}

} // namespace emulated_cudnn
