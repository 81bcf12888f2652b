/* The inside of the emulated cuDNN: descriptors, what each kind of them may hold, and what an
 * operation must bring so that graphs of it can be planned and run.
 *
 * Two kinds of errors.  A mistake (an attribute that does not exist, of the wrong type or number,
 * or forgotten; a descriptor that was not finalized; memory that is not a device's) ends the
 * program through emu_reject.  What the library does not support is a status, as from the real one.
 */
#ifndef TMD_EMULATED_CUDNN_STORE_H
#define TMD_EMULATED_CUDNN_STORE_H

#include "cudnn_runs.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace emulated_cudnn {

/* What a descriptor of some kind may be told. */
struct AttributeRule {
    cudnnBackendAttributeName_t name;
    cudnnBackendAttributeType_t type;
    int64_t min_elems, max_elems;
    enum { REQUIRED, OPTIONAL } need;
};

struct Descriptor;
using DescriptorRef = std::shared_ptr<const Descriptor>;

/* NOT_SUPPORTED_... with a reason, or SUCCESS. */
struct Verdict {
    cudnnStatus_t status;
    std::string reason;
};
inline Verdict supported() {
    return {CUDNN_STATUS_SUCCESS, ""};
}

struct DescriptorKind {
    cudnnBackendDescriptorType_t type;
    const char *name; /* for messages */
    std::vector<AttributeRule> rules;
    /* Judges the attributes together, all required ones being there; may be null. */
    Verdict (*judge)(const Descriptor &descriptor);
};

struct Descriptor {
    struct Value {
        cudnnBackendAttributeType_t type;
        std::vector<unsigned char> bytes; /* of the elements, unless they are descriptors */
        std::vector<DescriptorRef> links;
    };
    const DescriptorKind *kind;
    bool finalized = false;
    std::map<int, Value> values;
    int engine = -1; /* of engines and their configurations: which of the operation's */

    bool has(cudnnBackendAttributeName_t name) const {
        return values.count(name) != 0;
    }
    /* The elements of an attribute that is there. */
    template <typename T> std::vector<T> all(cudnnBackendAttributeName_t name) const {
        const Value &v = values.at(name);
        const T *first = reinterpret_cast<const T *>(v.bytes.data());
        return std::vector<T>(first, first + v.bytes.size() / sizeof(T));
    }
    template <typename T> T one(cudnnBackendAttributeName_t name, T otherwise = T()) const {
        return has(name) ? all<T>(name).at(0) : otherwise;
    }
    const Descriptor &link(cudnnBackendAttributeName_t name) const {
        return *values.at(name).links.at(0);
    }
};

/* A tensor descriptor, read. */
struct Tensor {
    int64_t uid, alignment;
    cudnnDataType_t type;
    std::vector<int64_t> dims, strides;
    bool on_host, is_virtual;

    explicit Tensor(const Descriptor &d);
    /* The tensor that attribute `name` of an operation links to. */
    Tensor(const Descriptor &operation, cudnnBackendAttributeName_t name)
        : Tensor(operation.link(name)) {
    }
    int64_t rank() const {
        return static_cast<int64_t>(dims.size());
    }
    int64_t elem_bytes() const;
    /* From the first byte to behind the last. */
    int64_t extent_bytes() const;
};

/* Where the tensors of a run are: device addresses, and copies of host scalars. */
class Memory {
  public:
    std::map<int64_t, void *> device;
    std::map<int64_t, double> host;
    void *workspace = nullptr;

    /* An element of a device tensor as float32, and its store, rounded to the tensor's type. */
    float load(const Tensor &t, int64_t offset) const;
    void store(const Tensor &t, int64_t offset, float value) const;
};
/* To nearest even. */
float round_to_bf16(float value);

/* How one engine computes an operation, or a pattern. */
struct Engine {
    std::vector<cudnnBackendNumericalNote_t> notes;
    int64_t (*workspace_bytes)(const Descriptor &operation); /* of a pattern: graph; null: none */
};

struct OperationKind {
    DescriptorKind descriptor;   /* links to tensors are the operation's tensors */
    std::vector<Engine> engines; /* for graphs of this operation alone; none: there are no such */
    /* On the device's time, when all memory can be reached. */
    void (*run)(const Descriptor &operation, int engine, const Memory &memory);
};

/* A graph of several operations for which there are engines. */
struct Pattern {
    const char *name;
    bool (*matches)(const Descriptor &graph);
    Verdict (*judge)(const Descriptor &graph);
    std::vector<Engine> engines;
};

/* ---- cudnn_kinds.cpp */

/* The operations of a graph, in the order of the caller. */
const std::vector<DescriptorRef> &graph_operations(const Descriptor &graph);
/* The operation that a graph consists of; null if there are several. */
const Descriptor *only_operation(const Descriptor &graph);
/* The pattern that a graph of several operations matches, or null. */
const Pattern *pattern_of(const Descriptor &graph);
/* The engines that can run a graph. */
const std::vector<Engine> &engines_of(const Descriptor &graph);
/* All tensors of a graph, each once; the tensors that an operation links to. */
std::vector<Tensor> graph_tensors(const Descriptor &graph);
std::vector<Tensor> tensors_of(const Descriptor &operation);
/* The kind of descriptors of a type, and of operations; null: there is none. */
const DescriptorKind *kind_of(cudnnBackendDescriptorType_t type);
const OperationKind *operation_kind(cudnnBackendDescriptorType_t type);

/* ---- what can be computed: cudnn_attention.cpp, cudnn_elements.cpp, cudnn_conv.cpp */

const std::vector<OperationKind> &attention_operations();
const std::vector<Pattern> &attention_patterns();
const std::vector<OperationKind> &element_operations();
const std::vector<DescriptorKind> &element_descriptor_kinds();
const std::vector<OperationKind> &convolution_operations();
const DescriptorKind &convolution_descriptor_kind();

} // namespace emulated_cudnn

#endif
