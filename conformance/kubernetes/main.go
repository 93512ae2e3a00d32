// Makes the table of Kubernetes' types that `etcdctl get --decode` reads, from the Go sources that
// define them: field numbers, names and types, which stand in the tags of the structs.
//
//	for v in v0.20.2 v0.35.0; do
//	  go mod download k8s.io/api@$v k8s.io/apimachinery@$v
//	done
//	cd "$(go env GOMODCACHE)/k8s.io"
//	go run THIS_DIRECTORY api@v0.20.2 apimachinery@v0.20.2 api@v0.35.0 apimachinery@v0.35.0 \
//	  > crates/ctl/src/kubernetes/types.txt
//
// Directories of several versions are merged, later ones last: fields and types are only ever
// added to a version of an API or removed from it, never given another meaning.
package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sort"
	"strconv"
	"strings"
)

const meta = "meta.k8s.io/v1"

// Types with a JSON form of their own, which the reader knows by these names.
var special = map[string]string{
	meta + "#Time":         "time",
	meta + "#MicroTime":    "microtime",
	meta + "#Duration":     "duration",
	meta + "#FieldsV1":     "raw",
	"runtime#RawExtension": "raw",
	"resource#Quantity":    "quantity",
	"intstr#IntOrString":   "intorstring",
}

var scalars = map[string]string{
	"string": "string", "bool": "bool", "int32": "int", "int64": "int", "int": "int",
	"uint32": "uint", "uint64": "uint", "uint8": "uint", "byte": "uint", "float64": "double", "float32": "float",
}

type declaration struct {
	pkg      string
	imports  map[string]string
	expr     ast.Expr
	nullable bool
}

type source struct {
	types map[string]declaration // by "package#Type"
}

type field struct{ name, kind, flags string }

func main() {
	merged := map[string]map[int]field{}
	for i := 1; i < len(os.Args); i += 2 {
		if i+1 == len(os.Args) {
			fatal("directories come in pairs: api, apimachinery")
		}
		s := source{types: map[string]declaration{}}
		s.readTree(os.Args[i])
		s.readPackage(filepath.Join(os.Args[i+1], "pkg/apis/meta/v1"), meta)
		s.collect(merged)
	}
	print(merged)
}

func fatal(text string) {
	fmt.Fprintln(os.Stderr, text)
	os.Exit(1)
}

// readTree reads all packages GROUP/VERSION below a directory.
func (s source) readTree(dir string) {
	registers, err := filepath.Glob(filepath.Join(dir, "*", "*", "register.go"))
	if err != nil || registers == nil {
		fatal("no API packages in " + dir)
	}
	for _, register := range registers {
		pkg := filepath.Dir(register)
		s.readPackage(pkg, apiVersion(register, filepath.Base(pkg)))
	}
}

// apiVersion is the group that a package registers, with its version.
func apiVersion(register, version string) string {
	file, err := parser.ParseFile(token.NewFileSet(), register, nil, 0)
	if err != nil {
		fatal(err.Error())
	}
	group := ""
	ast.Inspect(file, func(node ast.Node) bool {
		if value, ok := node.(*ast.ValueSpec); ok && value.Names[0].Name == "GroupName" {
			group, _ = strconv.Unquote(value.Values[0].(*ast.BasicLit).Value)
		}
		return true
	})
	if group == "" {
		return version
	}
	return group + "/" + version
}

func (s source) readPackage(dir, name string) {
	files, err := parser.ParseDir(token.NewFileSet(), dir, func(info fs.FileInfo) bool {
		name := info.Name()
		return !strings.HasSuffix(name, "_test.go") && !strings.HasPrefix(name, "zz_") && name != "generated.pb.go"
	}, parser.ParseComments)
	if err != nil {
		fatal(err.Error())
	}
	for _, pkg := range files {
		for _, file := range pkg.Files {
			s.readFile(file, name)
		}
	}
}

func (s source) readFile(file *ast.File, pkg string) {
	imports := map[string]string{}
	for _, spec := range file.Imports {
		path, _ := strconv.Unquote(spec.Path.Value)
		name := filepath.Base(path)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		imports[name] = path
	}
	for _, decl := range file.Decls {
		general, ok := decl.(*ast.GenDecl)
		if !ok || general.Tok != token.TYPE {
			continue
		}
		for _, spec := range general.Specs {
			spec := spec.(*ast.TypeSpec)
			comment := general.Doc.Text() + spec.Doc.Text()
			for _, group := range []*ast.CommentGroup{general.Doc, spec.Doc} {
				if group != nil {
					for _, line := range group.List {
						comment += line.Text
					}
				}
			}
			s.types[pkg+"#"+spec.Name.Name] = declaration{pkg, imports, spec.Type, strings.Contains(comment, "protobuf.nullable=true")}
		}
	}
}

// target is the package that an import path stands for in the table.
func target(path string) string {
	path = strings.TrimPrefix(path, "k8s.io/")
	switch path {
	case "apimachinery/pkg/apis/meta/v1":
		return meta
	case "apimachinery/pkg/runtime":
		return "runtime"
	case "apimachinery/pkg/api/resource":
		return "resource"
	case "apimachinery/pkg/util/intstr":
		return "intstr"
	case "apimachinery/pkg/types":
		return "types"
	}
	return path // api/GROUP/VERSION, which resolve() looks up
}

func (s source) resolveName(from declaration, expr ast.Expr) (string, bool) {
	switch expr := expr.(type) {
	case *ast.Ident:
		return from.pkg + "#" + expr.Name, true
	case *ast.SelectorExpr:
		pkg := target(from.imports[expr.X.(*ast.Ident).Name])
		if rest, ok := strings.CutPrefix(pkg, "api/"); ok {
			pkg = s.packageOf(rest)
		}
		return pkg + "#" + expr.Sel.Name, true
	}
	return "", false
}

// packageOf finds the name of a package GROUP/VERSION by its directory; only core has a short one.
func (s source) packageOf(path string) string {
	group, version, _ := strings.Cut(path, "/")
	if group == "core" {
		return version
	}
	for name := range s.types {
		pkg, _, _ := strings.Cut(name, "#")
		if first, v, _ := strings.Cut(pkg, "/"); v == version && strings.Split(first, ".")[0] == group {
			return pkg
		}
	}
	fatal("no package " + path)
	return ""
}

// kind is the type of a field in the table's notation.
func (s source) kind(from declaration, expr ast.Expr) string {
	switch expr := expr.(type) {
	case *ast.StarExpr:
		return "?" + strings.TrimPrefix(s.kind(from, expr.X), "?")
	case *ast.ArrayType:
		if ident, ok := expr.Elt.(*ast.Ident); ok && ident.Name == "byte" {
			return "bytes"
		}
		return "[]" + strings.TrimPrefix(s.kind(from, expr.Elt), "?")
	case *ast.MapType:
		return "{}" + strings.TrimPrefix(s.kind(from, expr.Value), "?")
	case *ast.Ident:
		if scalar, ok := scalars[expr.Name]; ok {
			return scalar
		}
	}
	name, ok := s.resolveName(from, expr)
	if !ok {
		fatal(fmt.Sprintf("%s: unknown expression %T", from.pkg, expr))
	}
	if known, ok := special[name]; ok {
		return known
	}
	if strings.HasPrefix(name, "types#") {
		return "string"
	}
	decl, ok := s.types[name]
	if !ok {
		fatal("unknown type " + name)
	}
	switch decl.expr.(type) {
	case *ast.StructType:
		return name
	case *ast.ArrayType:
		if decl.nullable {
			return "items"
		}
	}
	return s.kind(decl, decl.expr)
}

func (s source) collect(merged map[string]map[int]field) {
	for name, decl := range s.types {
		structure, ok := decl.expr.(*ast.StructType)
		if !ok || special[name] != "" {
			continue
		}
		fields := map[int]field{}
		for _, f := range structure.Fields.List {
			if f.Tag == nil {
				continue
			}
			text, _ := strconv.Unquote(f.Tag.Value)
			tag := reflect.StructTag(text)
			parts := strings.Split(tag.Get("protobuf"), ",")
			if len(parts) < 2 {
				continue
			}
			number, err := strconv.Atoi(parts[1])
			if err != nil {
				fatal(name + ": " + text)
			}
			json := strings.Split(tag.Get("json"), ",")
			flags := ""
			if slices.Contains(json[1:], "omitempty") {
				flags = "~"
			}
			kind := s.kind(decl, f.Type)
			shown := json[0]
			switch {
			case shown != "":
			case len(f.Names) == 0:
				// The fields of an embedded struct stand among those of the struct around it.
				flags = "^"
			default:
				shown = f.Names[0].Name
			}
			fields[number] = field{shown, kind, flags}
		}
		if merged[name] == nil {
			merged[name] = map[int]field{}
		}
		for number, f := range fields {
			if old, ok := merged[name][number]; ok && old != f {
				fmt.Fprintln(os.Stderr, "changed:", name, number, old, "->", f)
			}
			merged[name][number] = f
		}
	}
}

// used keeps what a stored object can hold: what is reached from types with `metadata`.
func used(merged map[string]map[int]field) map[string]bool {
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		if merged[name] == nil || seen[name] {
			return
		}
		seen[name] = true
		for _, f := range merged[name] {
			visit(strings.TrimLeft(f.kind, "?[]{}"))
		}
	}
	for name, fields := range merged {
		if fields[1].kind == meta+"#ObjectMeta" {
			visit(name)
		}
	}
	return seen
}

func print(merged map[string]map[int]field) {
	keep := used(merged)
	names := make([]string, 0, len(keep))
	for name := range keep {
		names = append(names, name)
	}
	sort.Strings(names)
	last := ""
	for _, name := range names {
		pkg, short, _ := strings.Cut(name, "#")
		if pkg != last {
			fmt.Printf("\n[%s]\n", pkg)
			last = pkg
		}
		fmt.Print(short, ":")
		fields := merged[name]
		numbers := make([]int, 0, len(fields))
		for number := range fields {
			numbers = append(numbers, number)
		}
		sort.Ints(numbers)
		for _, number := range numbers {
			f := fields[number]
			kind := strings.TrimLeft(f.kind, "?[]{}")
			shape := strings.TrimSuffix(f.kind, kind)
			fmt.Printf(" %d=%s:%s%s%s", number, f.name, shape, strings.TrimPrefix(kind, pkg+"#"), f.flags)
		}
		fmt.Println()
	}
}
